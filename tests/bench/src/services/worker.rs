//! A process in one namespace that serves or asks, told by lines on its input. One end of every measurement.
//!
//! Its threads stay, so that the processor time of a measurement is the difference of what they have used: threads
//! that sleep are accounted to the nanosecond.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use skep_test_programs::netns::Netns;
use socket2::{Domain, SockRef, Socket, Type};

const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that a server answers at a time, a port.
const SERVERS: usize = 34;
/// Most clients at a time.
pub(crate) const CLIENTS: usize = 32;

/// Options of the worker's own command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A cgroup to join first.
    #[arg(long)]
    cgroup: Option<PathBuf>,
}

/// What a worker is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Order {
    /// Answer on these addresses from now on.
    Serve(Vec<SocketAddr>),
    /// Connections with one exchange each, by so many clients at a time.
    Connect { to: SocketAddr, clients: usize, time: Duration },
    /// Exchanges on one connection.
    Exchange { to: SocketAddr, time: Duration },
}

/// What was counted in one slice of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counted {
    /// Connections or exchanges.
    pub(crate) count: u64,
    /// Wall time of one of them as a client sees it, nanoseconds, median: what else the machine does in between, which
    /// makes few of them much slower, does not count.
    pub(crate) each: f64,
    /// Wall time of all of them divided by their number, nanoseconds: the rate turned over.
    pub(crate) share: f64,
    /// How long each connection took to open, nanoseconds.
    pub(crate) opened: Vec<u32>,
}

type Answer = Result<Counted, String>;

/// A running worker; it ends with its value, or with our process.
pub(crate) struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts one in a namespace, inside a cgroup if one is given.
    pub(crate) fn start(netns: &Netns, cgroup: Option<&Path>) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = netns.command(program.to_str().context("a path that is no text")?);
        command.arg("services-worker");
        if let Some(cgroup) = cgroup {
            command.arg("--cgroup").arg(cgroup);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self { child, input, output })
    }

    /// Makes it answer on these addresses.
    pub(crate) fn serve(&mut self, addresses: &[SocketAddr]) -> Result<()> {
        self.ask(&Order::Serve(addresses.to_vec())).map(drop)
    }

    /// Connections with one exchange each.
    pub(crate) fn connect(&mut self, to: SocketAddr, clients: usize, time: Duration) -> Result<Counted> {
        self.ask(&Order::Connect { to, clients, time })
    }

    /// Exchanges on one connection.
    pub(crate) fn exchange(&mut self, to: SocketAddr, time: Duration) -> Result<Counted> {
        self.ask(&Order::Exchange { to, time })
    }

    /// Processor time of its threads so far, nanoseconds.
    pub(crate) fn cpu(&self) -> Result<u64> {
        let mut total = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))?.flatten() {
            // A thread that is gone took its time with it; none goes between two looks.
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            total += used(&text).unwrap_or(0);
        }
        Ok(total)
    }

    /// Keeps all its threads on one processor, or lets them go wherever they want.
    pub(crate) fn pin(&self, place: Place) -> Result<()> {
        let any = sched_getaffinity(Pid::from_raw(0))?;
        let set = match place {
            Place::One => first_of(&any)?,
            Place::Any => any,
        };
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))?.flatten() {
            let id: i32 = task.file_name().to_string_lossy().parse().context("a thread without a number")?;
            sched_setaffinity(Pid::from_raw(id), &set)?;
        }
        Ok(())
    }

    fn ask(&mut self, order: &Order) -> Result<Counted> {
        send(&mut self.input, order)?;
        let answer: Answer = receive(&mut self.output)?.context("a worker has ended")?;
        answer.map_err(anyhow::Error::msg)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _best_effort = self.child.kill();
        let _best_effort = self.child.wait();
    }
}

/// Where the threads of a worker may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// All of both ends on one processor: nothing waits for another one to wake up, which takes longer than what is
    /// measured, and differs from time to time.
    One,
    /// Anywhere.
    Any,
}

fn first_of(set: &CpuSet) -> Result<CpuSet> {
    let mut first = CpuSet::new();
    let numbers = 0..CpuSet::count();
    let number = numbers.into_iter().find(|number| set.is_set(*number).unwrap_or(false));
    first.set(number.context("no processor")?)?;
    Ok(first)
}

/// Nanoseconds on a processor, the first field.
fn used(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

fn send(to: &mut impl Write, message: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_string(message)?;
    line.push('\n');
    to.write_all(line.as_bytes())?;
    Ok(to.flush()?)
}

fn receive<T: DeserializeOwned>(from: &mut impl BufRead) -> Result<Option<T>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}

/// The worker's own main: follows orders until its input ends.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(cgroup) = &args.cgroup {
        fs::write(cgroup.join("cgroup.procs"), "0").context("cannot join the cgroup")?;
    }
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut pool = Pool::default();
    while let Some(order) = receive::<Order>(&mut input)? {
        let answer = match order {
            Order::Serve(addresses) => serve_all(&addresses).map(|()| Counted::default()),
            Order::Connect { to, clients, time } => pool.connect(to, clients, time),
            Order::Exchange { to, time } => exchanges(to, time),
        };
        send(&mut output, &answer.map_err(|error| format!("{error:#}")))?;
    }
    Ok(())
}

fn serve_all(addresses: &[SocketAddr]) -> Result<()> {
    for address in addresses {
        // More may knock at once than the 128 of the standard library would let wait.
        let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&(*address).into()).with_context(|| format!("cannot bind {address}"))?;
        socket.listen(1024)?;
        let listener = TcpListener::from(socket);
        for _ in 0..SERVERS {
            let listener = listener.try_clone()?;
            std::thread::spawn(move || answer(&listener));
        }
    }
    Ok(())
}

/// Answers each byte with itself, connection after connection. A reset ends one like a close does.
fn answer(listener: &TcpListener) {
    let mut byte = [0];
    while let Ok((mut stream, _)) = listener.accept() {
        let _best_effort = stream.set_nodelay(true);
        while matches!(stream.read(&mut byte), Ok(1)) && stream.write_all(&byte).is_ok() {}
    }
}

/// Threads that connect when they are told to.
#[derive(Default)]
struct Pool {
    clients: Vec<Client>,
}

struct Client {
    orders: mpsc::Sender<(SocketAddr, Instant)>,
    answers: mpsc::Receiver<Result<Vec<(u32, u32)>>>,
}

impl Client {
    fn start() -> Self {
        let (orders, told) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for (to, end) in told {
                if answer.send(connections(to, end)).is_err() {
                    return;
                }
            }
        });
        Self { orders, answers }
    }
}

impl Pool {
    fn connect(&mut self, to: SocketAddr, clients: usize, time: Duration) -> Result<Counted> {
        ensure!(clients <= CLIENTS, "at most {CLIENTS} clients");
        while self.clients.len() < clients {
            self.clients.push(Client::start());
        }
        let began = Instant::now();
        let end = began + time;
        for client in &self.clients[..clients] {
            client.orders.send((to, end)).context("a client is gone")?;
        }
        let (mut opened, mut whole) = (Vec::new(), Vec::new());
        for client in &self.clients[..clients] {
            let (first, all): (Vec<u32>, Vec<u32>) =
                client.answers.recv().context("a client is gone")??.into_iter().unzip();
            opened.extend(first);
            whole.extend(all);
        }
        counted(began.elapsed(), whole, opened)
    }
}

/// Connections until the time is over: how long each took to open, and until its client was ready for the next.
fn connections(to: SocketAddr, end: Instant) -> Result<Vec<(u32, u32)>> {
    let mut all = Vec::new();
    let mut began = Instant::now();
    while began < end {
        let mut stream = open(to)?;
        let opened = nanoseconds(began.elapsed());
        exchange(&mut stream)?;
        // A reset instead of a close: otherwise the ports would run out before the time.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        drop(stream);
        let now = Instant::now();
        all.push((opened, nanoseconds(now - began)));
        began = now;
    }
    Ok(all)
}

fn exchanges(to: SocketAddr, time: Duration) -> Result<Counted> {
    let mut stream = open(to)?;
    let (began, mut all) = (Instant::now(), Vec::new());
    let mut last = began;
    while last - began < time {
        exchange(&mut stream)?;
        let now = Instant::now();
        all.push(nanoseconds(now - last));
        last = now;
    }
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    counted(began.elapsed(), all, Vec::new())
}

/// Sums up what took `wall` altogether, and each of them so long.
fn counted(wall: Duration, mut each: Vec<u32>, opened: Vec<u32>) -> Result<Counted> {
    each.sort_unstable();
    let middle = each.get(each.len() / 2).context("nothing came through in time")?;
    let share = wall.as_nanos() as f64 / each.len() as f64;
    Ok(Counted { count: each.len() as u64, each: f64::from(*middle), share, opened })
}

fn open(to: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // Bounds the connect as well, without the two more system calls of a connect with a timeout.
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect(&to.into()).with_context(|| format!("cannot connect to {to}"))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

fn exchange(stream: &mut TcpStream) -> Result<()> {
    let mut byte = [b'x'];
    stream.write_all(&byte)?;
    if stream.read(&mut byte)? != 1 {
        bail!("the server closed the connection");
    }
    Ok(())
}

fn nanoseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_the_first_field() {
        assert_eq!(used("123456 7 8\n"), Some(123_456));
        assert_eq!(used(""), None);
    }
}
