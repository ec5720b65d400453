//! Running a program on a packet without a network: BPF_PROG_TEST_RUN.
//!
//! In:  a frame and what surrounds it.
//! Out: the return code, the mark, the frame afterwards, nanoseconds per run.
//! Not here: comparing with the host's verdict (tests).

use std::time::Duration;

use aya::programs::{ProgramError, SchedClassifier, TestRun as _, TestRunOptions};

/// Which program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// What the workload sends.
    FromPod,
    /// What the workload is sent.
    ToPod,
}

/// One run (or many of the same).
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The frame.
    pub frame: &'a [u8],
    /// Its mark.
    pub mark: u32,
    /// The interface whose hook it is at; one of the calling thread's network namespace.
    pub ifindex: u32,
    /// The interface it came in at, 0 for locally made.
    pub ingress_ifindex: u32,
    /// How often.
    pub repeat: u32,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ran {
    /// The program's return code.
    pub code: i32,
    /// The mark afterwards.
    pub mark: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Average of the runs.
    pub took: Duration,
}

/// Offsets into `struct __sk_buff` (`include/uapi/linux/bpf.h`).
mod skb {
    pub(super) const LENGTH: usize = 192;
    pub(super) const MARK: usize = 8;
    pub(super) const INGRESS_IFINDEX: usize = 36;
    pub(super) const IFINDEX: usize = 40;
}

pub(crate) fn run(program: &SchedClassifier, run: &Run<'_>) -> Result<Ran, ProgramError> {
    let mut context = [0_u8; skb::LENGTH];
    for (at, value) in [
        (skb::MARK, run.mark),
        (skb::INGRESS_IFINDEX, run.ingress_ifindex),
        (skb::IFINDEX, run.ifindex),
    ] {
        if let Some(field) = context.get_mut(at..at.saturating_add(4)) {
            field.copy_from_slice(&value.to_ne_bytes());
        }
    }
    let mut after = [0_u8; skb::LENGTH];
    let mut frame = vec![0_u8; run.frame.len().saturating_add(256)];
    let result = program.test_run(TestRunOptions {
        data_in: Some(run.frame),
        data_out: Some(&mut frame),
        ctx_in: Some(&context),
        ctx_out: Some(&mut after),
        repeat: run.repeat,
        ..TestRunOptions::new()
    })?;
    frame.truncate(usize::try_from(result.data_size_out).unwrap_or(0));
    let mark = after
        .get(skb::MARK..skb::MARK.saturating_add(4))
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_ne_bytes);
    Ok(Ran {
        code: result.return_value.cast_signed(),
        mark,
        frame,
        took: result.duration,
    })
}
