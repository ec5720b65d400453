//! Processor time of somebody else, and where he runs.
//!
//! In:  a process, or a thread of this one.
//! Out: what it has spent, to the nanosecond; a place on one processor.
//! Not here: what it does meanwhile.

use std::time::Duration;

use anyhow::Context as _;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

/// Whose time is counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cpu {
    /// Nobody's.
    Nobody,
    /// A process's, by its number.
    Process(i32),
    /// A thread's of this process, by its number.
    Thread(i32),
}

impl Cpu {
    /// A thread of this process by its name.
    pub(super) fn thread(name: &str) -> anyhow::Result<Self> {
        for entry in std::fs::read_dir("/proc/self/task")? {
            let entry = entry?;
            if std::fs::read_to_string(entry.path().join("comm"))?.trim() == name {
                let number = entry.file_name().to_string_lossy().parse()?;
                return Ok(Self::Thread(number));
            }
        }
        anyhow::bail!("no thread is called `{name}`")
    }

    /// Processor time so far.
    pub(super) fn spent(self) -> anyhow::Result<Duration> {
        // Dynamic clocks: the number's complement, the kind in the lowest bits (linux/posix-timers.h).
        let clock = match self {
            Self::Nobody => return Ok(Duration::ZERO),
            Self::Process(number) => !number << 3 | 2,
            Self::Thread(number) => !number << 3 | 6,
        };
        let spent = clock_gettime(ClockId::from_raw(clock)).context("reading processor time")?;
        Ok(spent.into())
    }

    /// Keeps it on one processor.
    pub(super) fn pin(self, processor: usize) -> anyhow::Result<()> {
        match self {
            Self::Nobody => Ok(()),
            Self::Process(number) | Self::Thread(number) => pin(number, processor),
        }
    }
}

/// Keeps the calling thread on one processor.
pub(super) fn pin_self(processor: usize) -> anyhow::Result<()> {
    pin(0, processor)
}

fn pin(number: i32, processor: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    sched_setaffinity(Pid::from_raw(number), &set).context("choosing a processor")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_is_spent_is_counted() {
        let own = Cpu::Thread(nix::unistd::gettid().as_raw());
        let whole = Cpu::Process(nix::unistd::getpid().as_raw());
        let before = (own.spent().unwrap(), whole.spent().unwrap());
        let until = std::time::Instant::now() + Duration::from_millis(20);
        while std::time::Instant::now() < until {}
        assert!(own.spent().unwrap() > before.0);
        assert!(whole.spent().unwrap() > before.1);
    }
}
