//! The name servers of the world: an honest unbound, a lying dnsmasq, a stub on the host.
//!
//! In:  a namespace and a folder for configurations.
//! Out: running servers.
//! Not here: names (`zone`).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{address as at, zone};
use crate::wait::until_true;
use crate::{Netns, Process, slowness, tools};

const READY: Duration = Duration::from_secs(20);

/// unbound with the world's zone, on the resolver's addresses.
pub(super) fn unbound(netns: &Netns, files: &Path, fresh: u32) -> Result<Process> {
    let zone = files.join("root.zone");
    std::fs::write(&zone, zone::text(fresh))?;
    let config = files.join("unbound.conf");
    std::fs::write(
        &config,
        format!(
            r#"server:
  directory: "{files}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  num-threads: 1
  interface: {v4}
  interface: {v6}
  access-control: 0.0.0.0/0 allow
  access-control: ::/0 allow
  module-config: "iterator"
  incoming-num-tcp: 200
  outgoing-range: 64
  num-queries-per-thread: 4096
  so-rcvbuf: 4m
  minimal-responses: yes
  max-udp-size: 4096
  local-zone: "test." nodefault
remote-control:
  control-enable: no
auth-zone:
  name: "."
  zonefile: "{zone}"
  for-downstream: yes
  for-upstream: no
"#,
            files = files.display(),
            zone = zone.display(),
            v4 = at::RESOLVER,
            v6 = at::RESOLVER6,
        ),
    )?;
    Process::spawn(
        "unbound",
        netns
            .command(program("unbound")?)
            .args(["-d", "-p", "-c"])
            .arg(config),
    )
}

/// dnsmasq that answers every question with the address of evil.
pub(super) fn liar(netns: &Netns, files: &Path) -> Result<Process> {
    Process::spawn(
        "dnsmasq (liar)",
        dnsmasq(netns, files, "liar")?.args([
            "--listen-address",
            at::LIAR,
            "--address",
            &format!("/#/{}", at::EVIL),
            "--local-ttl",
            "300",
        ]),
    )
}

/// The address that the liar answers everything with.
pub fn liar_answers() -> &'static str {
    at::EVIL
}

/// A forwarding resolver on the host itself, as systemd-resolved or dnsmasq of a desktop.
#[derive(Debug)]
pub struct Stub {
    _dnsmasq: Process,
}

impl Stub {
    /// The address it listens on, reachable on the host alone.
    pub const ADDRESS: &'static str = "127.0.0.53";

    /// Starts it and waits until it answers.
    pub fn start(host: &Netns, files: &Path) -> Result<Self> {
        let mut process = Process::spawn(
            "dnsmasq (stub)",
            dnsmasq(host, files, "stub")?.args([
                "--listen-address",
                Self::ADDRESS,
                "--server",
                at::RESOLVER,
            ]),
        )?;
        wait_for_answer(host, Self::ADDRESS, &mut process)?;
        Ok(Self { _dnsmasq: process })
    }
}

fn dnsmasq(netns: &Netns, files: &Path, name: &str) -> Result<std::process::Command> {
    let mut command = netns.command(program("dnsmasq")?);
    command
        .args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
        ])
        .args(["--user=root", "--except-interface=uplink", "--port=53"])
        .arg(format!(
            "--pid-file={}",
            files.join(format!("{name}.pid")).display()
        ));
    Ok(command)
}

pub(super) fn wait_ready(host: &Netns, servers: &mut [Process]) -> Result<()> {
    for address in [at::RESOLVER, at::RESOLVER6, at::LIAR] {
        for server in &mut *servers {
            server.check()?;
        }
        until_true(READY, &format!("the resolver at {address}"), || {
            answers(host, address)
        })?;
    }
    Ok(())
}

fn wait_for_answer(netns: &Netns, address: &str, process: &mut Process) -> Result<()> {
    until_true(READY, &format!("the resolver at {address}"), || {
        process.check().is_err() || answers(netns, address)
    })?;
    process.check()
}

fn answers(netns: &Netns, address: &str) -> bool {
    let server = format!("@{address}");
    let wait = format!("+time={}", slowness());
    netns
        .output(
            "dig",
            &[&wait, "+tries=1", "+short", &server, "example.test"],
        )
        .is_ok_and(|output| output.status == 0 && output.stdout.contains("203.0.113."))
}

fn program(name: &str) -> Result<std::path::PathBuf> {
    tools::find(name)
        .with_context(|| format!("`{name}` is missing: run `scripts/setup --for test`"))
}
