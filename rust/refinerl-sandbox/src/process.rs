//! An interpreter that is started by exec with a scrubbed environment and gets its modules over a socket.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{ChildStderr, Command, Stdio};
use std::time::Duration;

use rustix::net::{shutdown, socketpair, AddressFamily, Shutdown, SocketFlags, SocketType};
use rustix::process::{pidfd_open, pidfd_send_signal, waitid, Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::channel::{readable, receive, retry, send};
use crate::value::Value;
use crate::{wire, Error};

/// The program of the interpreter. It reads the modules from the socket and calls `main` of the last one with the
/// packages that programs may import.
///
/// First it undoes what exec inherits from a trainer: descriptors, ignored signals, and a high limit of descriptors,
/// which is lowered to 256, so that nothing above that can be open. Its score for the out-of-memory killer is raised,
/// so that it is killed before its parent.
/// `-s -S` and the filtered path keep out site files, user files and the working directory (`-P` does not exist before
/// 3.11, and `-I` would ignore the hash seed). Hooks that modules run after each fork are not registered: they reseed
/// `random` and repair threads, which this process never has, at twice the cost of the fork itself. The modules are
/// removed from `sys.modules`, so that no program can import them.
const BOOT: &str = "\
import sys
sys.path[:] = filter(None, sys.path)
import marshal, os, resource, signal
for name in os.listdir('/proc/self/fd'):
    try:
        int(name) > 2 and os.close(int(name))
    except OSError:
        pass  # the descriptor of the listing itself
try:
    with open('/proc/self/oom_score_adj', 'r+') as score:
        int(score.read()) < 500 and print(500, file=score)
except OSError:
    pass
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}:
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)
os.register_at_fork = lambda **hooks: None
modules, packages = marshal.loads(os.read(0, 1 << 18))
for name, source in modules:
    module = sys.modules[name] = type(sys)(name)
    exec(compile(source, name + '.py', 'exec'), module.__dict__)
for name, _ in modules:
    del sys.modules[name]
module.main(packages)
";

const JAIL: (&str, &str) = ("jail", include_str!("../python/jail.py"));
const PROBE: (&str, &str) = ("probe", include_str!("../python/probe.py"));
const ALIKE: (&str, &str) = ("alike", include_str!("../python/alike.py"));
const WARM: (&str, &str) = ("warm", include_str!("../python/warm.py"));
const ANSWER: (&str, &str) = ("answer", include_str!("../python/answer.py"));
const CHILD: (&str, &str) = ("child", include_str!("../python/child.py"));
const ZYGOTE: (&str, &str) = ("zygote", include_str!("../python/zygote.py"));

/// The modules of a zygote; the last one's `main` is called.
pub const ZYGOTE_MODULES: Modules = &[JAIL, ALIKE, WARM, ANSWER, CHILD, ZYGOTE];
/// The same modules without any protection, for the bench that measures its cost.
#[cfg(feature = "unprotected")]
pub const UNPROTECTED_MODULES: Modules = &[
    (
        "jail",
        "import os\nenter = lambda *_: None\nsecond_filter = lambda _: lambda: None\n",
    ),
    ALIKE,
    WARM,
    ANSWER,
    CHILD,
    ZYGOTE,
];

/// Names and sources of modules.
pub type Modules = &'static [(&'static str, &'static str)];

/// The wait for an interpreter to start. It takes a fraction of a second, except on a machine in serious trouble.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// The interpreter that zygotes run.
#[derive(Clone, Debug)]
pub struct Interpreter {
    /// The executable.
    pub python: PathBuf,
    /// Names of packages beside the standard library, and the folder or file of each.
    pub packages: Vec<(String, String)>,
}

/// A running interpreter. Dropping it closes its socket, upon which it ends, and reaps it.
pub struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    stderr: Option<ChildStderr>,
    /// The socket to it; None once it has been told to end.
    socket: Option<OwnedFd>,
    owner: u32,
}

impl Process {
    /// Exec the interpreter and hand it `modules`.
    pub fn start(interpreter: &Interpreter, modules: &[(&str, &str)]) -> Result<Process, Error> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|errno| Error::Fault(errno.to_string()))?;
        let mut command = Command::new(&interpreter.python);
        command.args(["-s", "-S", "-c", BOOT]).env_clear();
        command.envs([
            ("PYTHONHASHSEED", "0"),
            ("PYTHONSAFEPATH", "1"),
            ("PYTHONUTF8", "1"),
            ("PYTHONDONTWRITEBYTECODE", "1"),
            // Programs written for older versions print longer integers; the processor limit bounds the cost.
            ("PYTHONINTMAXSTRDIGITS", "0"),
            ("PYTHONWARNINGS", "ignore"),
            // Arenas of threads would count against the limit of address space.
            ("MALLOC_ARENA_MAX", "1"),
            // One thread each, because tests already run side by side.
            ("OMP_NUM_THREADS", "1"),
            ("OPENBLAS_NUM_THREADS", "1"),
            // Otherwise every child would look up each libc function that it calls again.
            ("LD_BIND_NOW", "1"),
        ]);
        // Some interpreters need it to find their own library. The zygote clears its environment once it runs.
        command.envs(std::env::var_os("LD_LIBRARY_PATH").map(|path| ("LD_LIBRARY_PATH", path)));
        command
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| Error::Fault(format!("{} does not start: {error}", interpreter.python.display())))?;
        // The command holds the other end of the socket, which would hide the end of the interpreter.
        drop(command);
        let (pid, stderr) = (Pid::from_child(&child), child.stderr.take());
        // Only a descriptor names it reliably: if SIGCHLD is ignored, or others reap, its pid may be reused.
        let pidfd = pidfd_open(pid, PidfdFlags::empty())
            .map_err(|errno| Error::Fault(format!("no sandbox process: it ended at its start ({errno})")))?;
        let mut process = Process {
            pid,
            pidfd,
            stderr,
            socket: Some(ours),
            owner: std::process::id(),
        };
        let pair = |name: &str, text: &str| Value::Tuple(vec![Value::Str(name.into()), Value::Str(text.into())]);
        let modules = modules.iter().map(|(name, source)| pair(name, source)).collect();
        let packages = interpreter.packages.iter().map(|(name, place)| pair(name, place));
        let first = Value::Tuple(vec![Value::List(modules), Value::List(packages.collect())]);
        let sent = send(process.socket(), &wire::encode(&first), &[]);
        sent.map_err(|errno| process.fault(&errno.to_string()))?;
        Ok(process)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The socket to it.
    pub fn socket(&self) -> &OwnedFd {
        self.socket.as_ref().expect("the socket is open until the end begins")
    }

    /// Wait for the next packet of a process that is starting.
    pub fn answer(&mut self) -> Result<Vec<u8>, Error> {
        if !readable(self.socket(), START_TIMEOUT) {
            return Err(self.fault("it does not get ready"));
        }
        match receive(self.socket(), 1 << 18) {
            Ok((packet, _)) if !packet.is_empty() => Ok(packet),
            Ok(_) => Err(self.fault("it ended at its start")),
            Err(errno) => Err(self.fault(&errno.to_string())),
        }
    }

    /// End a process that failed to start, and describe the failure with everything that is known.
    pub fn fault(&mut self, reason: &str) -> Error {
        let how = self.end();
        let mut text = Vec::new();
        if let Some(stderr) = self.stderr.take() {
            // A fork of it may still hold the pipe, so read only what it has written by now.
            if readable(&stderr, Duration::from_millis(100)) {
                let _ = stderr.take(1 << 14).read_to_end(&mut text);
            }
        }
        let text = String::from_utf8_lossy(&text);
        let said = if text.trim().is_empty() {
            String::new()
        } else {
            format!("; it said:\n{}", text.trim_end())
        };
        Error::Fault(format!("no sandbox process: {reason} ({how}){said}"))
    }

    /// Stop reading standard error, because the process is ready.
    pub fn settle(&mut self) {
        self.stderr = None;
    }

    /// Tell it to end by shutting down its socket, which works even if a fork of ours holds a copy. Dropping then
    /// waits.
    pub fn begin_end(&mut self) {
        if let (Some(socket), true) = (self.socket.take(), self.is_ours()) {
            let _ = shutdown(&socket, Shutdown::Both);
        }
    }

    /// End the process and describe how it ended.
    fn end(&mut self) -> String {
        self.begin_end();
        if !readable(&self.pidfd, END_TIMEOUT) {
            let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        }
        // It may have been reaped already: by the kernel where SIGCHLD is ignored, or by code that waits for any child.
        let status = retry(|| waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED));
        match status.ok().flatten() {
            Some(status) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (_, Some(signal)) => format!("signal {signal}"),
                _ => "ended".into(),
            },
            None => "reaped by others".into(),
        }
    }

    /// False in a fork of our process, which must not end it. Closing the fork's copies of its descriptors ends
    /// nothing.
    fn is_ours(&self) -> bool {
        self.owner == std::process::id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_ours() {
            self.end();
        }
    }
}

/// Run the probe and return its plan; `started` gets its process id first.
pub fn ask(interpreter: &Interpreter, started: impl FnOnce(u32)) -> Result<Value, Error> {
    let mut process = Process::start(interpreter, &[JAIL, PROBE])?;
    started(process.pid());
    let packet = process.answer()?;
    wire::decode(&packet).map_err(|malformed| process.fault(malformed.0))
}
