//! The channels of a WebSocket client and the SPDY streams they stand for. Pure.

/// One channel and its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Channel {
    /// The first byte of its messages.
    pub(crate) number: u8,
    /// The stream's headers.
    pub(crate) headers: Vec<(String, String)>,
    /// Whether the client may send on it.
    pub(crate) from_client: bool,
    /// Whether the session lasts as long as the runtime sends on it.
    pub(crate) keeps_open: bool,
}

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// What a client wants of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Streams {
    /// Send input.
    pub(crate) stdin: bool,
    /// Receive output.
    pub(crate) stdout: bool,
    /// Receive errors.
    pub(crate) stderr: bool,
    /// Through a terminal.
    pub(crate) tty: bool,
}

/// The channels of exec and attach. The order matters: the error stream must be there first.
pub(crate) fn remote_command(streams: Streams) -> Vec<Channel> {
    let channel = |number: u8, kind: &str, from_client: bool| Channel {
        number,
        headers: vec![("streamtype".to_owned(), kind.to_owned())],
        from_client,
        keeps_open: !from_client,
    };
    let mut channels = vec![channel(ERROR, "error", false)];
    if streams.stdin {
        channels.push(channel(STDIN, "stdin", true));
    }
    if streams.stdout {
        channels.push(channel(STDOUT, "stdout", false));
    }
    if streams.stderr && !streams.tty {
        channels.push(channel(STDERR, "stderr", false));
    }
    if streams.tty {
        channels.push(channel(RESIZE, "resize", true));
    }
    channels
}

/// The channels of a port-forward: an error and a data stream a port.
pub(crate) fn port_forward(ports: &[u16]) -> Vec<Channel> {
    let mut channels = Vec::new();
    for (index, port) in (0u8..).zip(ports) {
        for (offset, kind) in [(1, "error"), (0, "data")] {
            channels.push(Channel {
                number: index * 2 + offset,
                headers: vec![
                    ("streamtype".to_owned(), kind.to_owned()),
                    ("port".to_owned(), port.to_string()),
                    ("requestid".to_owned(), index.to_string()),
                ],
                from_client: kind == "data",
                keeps_open: kind == "data",
            });
        }
    }
    channels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_no_stderr_but_a_size() {
        let numbers = |streams| remote_command(streams).into_iter().map(|c| c.number).collect::<Vec<_>>();
        let all = Streams { stdin: true, stdout: true, stderr: true, tty: false };
        assert_eq!(numbers(all), [ERROR, STDIN, STDOUT, STDERR]);
        assert_eq!(numbers(Streams { tty: true, ..all }), [ERROR, STDIN, STDOUT, RESIZE]);
    }

    #[test]
    fn each_port_has_its_error_stream_before_its_data_stream() {
        let channels = port_forward(&[80, 443]);
        assert_eq!(channels.iter().map(|c| c.number).collect::<Vec<_>>(), [1, 0, 3, 2]);
        assert_eq!(channels[2].headers[1].1, "443");
    }
}
