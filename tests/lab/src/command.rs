//! A program run to its end, or to a deadline.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What a program said.
#[derive(Debug, Clone)]
pub struct Said {
    /// Its exit code; -1 after a signal.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Said {
    /// The output of a program that must succeed.
    pub fn ok(self) -> Result<String> {
        if self.code != 0 {
            bail!("exit code {}: {}{}", self.code, self.out, self.err);
        }
        Ok(self.out)
    }

    /// The complaint of a program that must fail.
    pub fn refused(self) -> Result<String> {
        if self.code == 0 {
            bail!("succeeded against expectation: {}", self.out);
        }
        Ok(format!("{}{}", self.out, self.err))
    }
}

/// Runs a program with this input; ends it at the limit.
pub fn run(command: &mut Command, input: &[u8], limit: Duration) -> Result<Said> {
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let line = format!("{} {}", command.get_program().to_string_lossy(), words.join(" "));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {line}"))?;
    let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let input = input.to_vec();
    let writer = thread::spawn(move || stdin.as_mut().map(|pipe| pipe.write_all(&input)));
    let (out, err) = (collect(stdout), collect(stderr));
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("{line} did not end within {} s: {}", limit.as_secs(), err.join().unwrap_or_default());
        }
        thread::sleep(Duration::from_millis(10));
    };
    // A program that ends without reading its input closes the pipe: that is its right.
    let _ = writer.join();
    Ok(Said {
        code: status.code().unwrap_or(-1),
        out: out.join().unwrap_or_default(),
        err: err.join().unwrap_or_default(),
    })
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is what there is to show.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Repeats `look` until it succeeds; the last error when the time is over.
pub fn eventually<T>(limit: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("not within {} s", limit.as_secs())));
            }
            Err(_) => thread::sleep(Duration::from_millis(200)),
        }
    }
}
