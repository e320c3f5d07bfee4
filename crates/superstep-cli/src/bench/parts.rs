//! What the parts of a measurement take of the machine: processor time and memory.
//!
//! Seen through /proc, where there is one and the process is on this machine: this process, worker
//! processes, servers that were started here, and servers that listen on this machine if their
//! process may be looked at. What cannot be seen is left out.
//!
//! The rule it keeps: a process counts for what it used while the window was open, no more.

use std::time::Instant;

use serde::Serialize;

/// A process that takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    name: String,
    pid: u32,
}

/// What a part used while the window was open.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Used {
    /// Which part.
    pub(crate) part: String,
    /// Its processor time in seconds.
    pub(crate) cpu_seconds: f64,
    /// The same for each superstep, in microseconds.
    pub(crate) cpu_us_per_superstep: f64,
    /// The same in parts of one processor.
    pub(crate) cpu_share: f64,
    /// The most memory that it was seen to have, in bytes.
    pub(crate) memory_bytes_max: u64,
}

/// Looks at parts from time to time.
#[derive(Debug)]
pub(crate) struct Meters {
    parts: Vec<Metered>,
    opened: Option<Instant>,
    closed: Option<Instant>,
}

#[derive(Debug)]
struct Metered {
    part: Part,
    begin: Option<f64>,
    end: Option<f64>,
    memory: u64,
}

impl Part {
    pub(crate) fn new(name: &str, pid: u32) -> Self {
        Self {
            name: name.to_owned(),
            pid,
        }
    }

    /// This process.
    pub(crate) fn here(name: &str) -> Self {
        Self::new(name, std::process::id())
    }
}

impl Meters {
    pub(crate) fn new(parts: Vec<Part>) -> Self {
        let metered = |part| Metered {
            part,
            begin: None,
            end: None,
            memory: 0,
        };
        Self {
            parts: parts.into_iter().map(metered).collect(),
            opened: None,
            closed: None,
        }
    }

    /// What was used while the window was open and so many supersteps were done.
    #[expect(clippy::cast_precision_loss, reason = "no load counts so far")]
    pub(crate) fn used(&self, supersteps: u64) -> Vec<Used> {
        let (Some(opened), Some(closed)) = (self.opened, self.closed) else {
            return Vec::new();
        };
        let seconds = closed.duration_since(opened).as_secs_f64().max(0.001);
        let used = |metered: &Metered| {
            let cpu_seconds = metered.end? - metered.begin?;
            Some(Used {
                part: metered.part.name.clone(),
                cpu_seconds,
                cpu_us_per_superstep: cpu_seconds * 1e6 / supersteps.max(1) as f64,
                cpu_share: cpu_seconds / seconds,
                memory_bytes_max: metered.memory,
            })
        };
        self.parts.iter().filter_map(used).collect()
    }
}

impl super::drive::Watch for Meters {
    fn opened(&mut self) {
        self.opened = Some(Instant::now());
        for metered in &mut self.parts {
            metered.begin = look(metered);
        }
    }

    fn ticked(&mut self) {
        for metered in &mut self.parts {
            look(metered);
        }
    }

    fn closed(&mut self) {
        self.closed = Some(Instant::now());
        for metered in &mut self.parts {
            metered.end = look(metered);
        }
    }
}

/// The processor time in seconds; notes the memory.
fn look(metered: &mut Metered) -> Option<f64> {
    let (cpu, memory) = system::usage(metered.part.pid)?;
    metered.memory = metered.memory.max(memory);
    Some(cpu)
}

/// The process that listens on this port of this machine, under a name that says what it is.
pub(crate) fn listener(name: &str, host: &str, port: u16) -> Option<Part> {
    let is_here = matches!(host, "localhost" | "127.0.0.1" | "::1" | "[::1]");
    let pid = is_here.then(|| system::listener(port)).flatten()?;
    Some(Part::new(name, pid))
}

/// How busy the machine was, over the last minute.
pub(crate) fn load_average() -> Option<f64> {
    system::load_average()
}

/// The processors, and the memory in bytes.
pub(crate) fn machine() -> (usize, Option<u64>) {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    (cpus, system::memory_bytes())
}

#[cfg(target_os = "linux")]
mod system {
    //! The same, as Linux tells it.

    use procfs::{Current as _, LoadAverage, Meminfo, process};

    pub(super) fn usage(pid: u32) -> Option<(f64, u64)> {
        let stat = process::Process::new(i32::try_from(pid).ok()?)
            .ok()?
            .stat()
            .ok()?;
        #[expect(clippy::cast_precision_loss, reason = "ticks of a process are few")]
        let cpu = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
        Some((cpu, stat.rss * procfs::page_size()))
    }

    pub(super) fn listener(port: u16) -> Option<u32> {
        let sockets = [procfs::net::tcp(), procfs::net::tcp6()];
        let inode = sockets.into_iter().flatten().flatten().find_map(|entry| {
            let listens = entry.state == procfs::net::TcpState::Listen;
            (listens && entry.local_address.port() == port).then_some(entry.inode)
        })?;
        let owns = |process: &process::Process| {
            let is_it = |target| target == process::FDTarget::Socket(inode);
            let fds = process.fd().into_iter().flatten().flatten();
            fds.into_iter().any(|fd| is_it(fd.target))
        };
        let all = process::all_processes().ok()?.flatten();
        let found = all.into_iter().find(owns)?;
        u32::try_from(found.pid()).ok()
    }

    pub(super) fn load_average() -> Option<f64> {
        Some(f64::from(LoadAverage::current().ok()?.one))
    }

    pub(super) fn memory_bytes() -> Option<u64> {
        Some(Meminfo::current().ok()?.mem_total)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    //! Elsewhere nothing is seen.

    pub(super) fn usage(_: u32) -> Option<(f64, u64)> {
        None
    }

    pub(super) fn listener(_: u16) -> Option<u32> {
        None
    }

    pub(super) fn load_average() -> Option<f64> {
        None
    }

    pub(super) fn memory_bytes() -> Option<u64> {
        None
    }
}
