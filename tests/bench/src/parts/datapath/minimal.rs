//! The least a tc program can do, compiled and loaded.
//!
//! In:  `minimal.bpf.c`, clang.
//! Out: [`Minimal`]: attached to an interface, or run on a frame.
//! Not here: what it does (the C file says).

use std::process::Command;

use anyhow::{Context as _, anyhow, ensure};
use aya::{
    Ebpf,
    maps::HashMap,
    programs::{
        LinkOrder, SchedClassifier, TcAttachType, TestRun as _, TestRunOptions,
        tc::{SchedClassifierLink, TcAttachOptions},
    },
};
use fqdn_ebpf_loader::Program;

use super::frame::POD;

const SOURCE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/src/parts/datapath/minimal.bpf.c"
);

/// `struct endpoint`: its number, the mapped IPv4 address, the IPv6 address.
type Endpoint = [u8; 36];

/// Length of `struct __sk_buff`, and the field with the interface.
const CONTEXT: usize = 192;
const IFINDEX: std::ops::Range<usize> = 40..44;

/// The programs in the kernel.
#[derive(Debug)]
pub(super) struct Minimal {
    programs: Ebpf,
}

impl Minimal {
    /// Compiles, loads, and puts the endpoint behind this interface.
    pub(super) fn new(ifindex: u32) -> anyhow::Result<Self> {
        let mut programs = Ebpf::load(&compiled()?).context("loading the minimal program")?;
        for which in [Program::FromPod, Program::ToPod] {
            program(&mut programs, which)?.load()?;
        }
        let map = programs.map_mut("ENDPOINTS").context("no ENDPOINTS")?;
        let mut endpoints = HashMap::<_, [u8; 4], Endpoint>::try_from(map)?;
        let endpoint: Endpoint = [
            &1_u32.to_ne_bytes()[..],
            &POD.to_ipv6_mapped().octets(),
            &[0; 16],
        ]
        .concat()
        .try_into()
        .map_err(|_| anyhow!("the record has another size"))?;
        endpoints.insert(ifindex.to_ne_bytes(), endpoint, 0)?;
        Ok(Self { programs })
    }

    /// Puts the programs first in the chains of an interface of this thread's network namespace,
    /// until the links are dropped.
    pub(super) fn attach(&mut self, interface: &str) -> anyhow::Result<Vec<SchedClassifierLink>> {
        [
            (Program::FromPod, TcAttachType::Ingress),
            (Program::ToPod, TcAttachType::Egress),
        ]
        .into_iter()
        .map(|(which, at)| {
            let program = program(&mut self.programs, which)?;
            let first = TcAttachOptions::TcxOrder(LinkOrder::first());
            let id = program.attach_with_options(interface, at, first)?;
            Ok(program.take_link(id)?)
        })
        .collect()
    }

    /// Return code and nanoseconds per run.
    pub(super) fn run(
        &mut self,
        which: Program,
        ifindex: u32,
        frame: &[u8],
        repeat: u32,
    ) -> anyhow::Result<(i32, f64)> {
        let mut context = [0; CONTEXT];
        context
            .get_mut(IFINDEX)
            .context("the context is too short")?
            .copy_from_slice(&ifindex.to_ne_bytes());
        let ran = program(&mut self.programs, which)?.test_run(TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::new()
        })?;
        Ok((
            ran.return_value.cast_signed(),
            ran.duration.as_secs_f64() * 1e9,
        ))
    }
}

fn program(programs: &mut Ebpf, which: Program) -> anyhow::Result<&mut SchedClassifier> {
    let name = match which {
        Program::FromPod => "from_workload",
        Program::ToPod => "to_workload",
    };
    let program = programs.program_mut(name);
    Ok(program
        .with_context(|| format!("no program {name}"))?
        .try_into()?)
}

fn compiled() -> anyhow::Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let object = folder.path().join("minimal.o");
    let include = format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    let status = Command::new("clang")
        .args([
            "-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror",
        ])
        .args([&include, "-c", SOURCE, "-o"])
        .arg(&object)
        .status()
        .context("clang is missing: run `scripts/setup --for bench`")?;
    ensure!(status.success(), "clang ended with {status}");
    Ok(std::fs::read(&object)?)
}
