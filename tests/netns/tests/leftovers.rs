//! What is left after a run: nothing, however it ended.

use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, ensure};
use netns::{answered_by, get};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use support::leftovers::{Held, Machine};
use support::{Process, Running, World, until, world::address as at};

/// A closed machine: every sysctl that a run has to change and restore, and a firewall with chains
/// that it has to insert into and leave as they were.
fn closed_machine() -> Result<World> {
    let world = World::new()?;
    for (key, value) in [
        ("net.ipv4.ip_forward", "0"),
        ("net.ipv6.conf.all.forwarding", "0"),
        ("net.ipv4.conf.all.rp_filter", "1"),
        ("net.ipv4.conf.default.rp_filter", "1"),
        ("net.ipv6.conf.eth0.accept_ra", "1"),
    ] {
        world.host.sysctl(key, value)?;
    }
    world.host.nft(
        "table ip filter { chain FORWARD { type filter hook forward priority filter; policy drop; counter; }; }
         table inet guard { chain input { type filter hook input priority filter; policy drop; iif lo accept; ct state established,related accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; }; }",
    )?;
    Ok(world)
}

/// A run in the middle of its work, and what it holds.
fn busy(world: &World) -> Result<(Running, Held)> {
    let shell = {
        let mut shell = world.run_with_dns()?.allow("example.test").shell()?;
        answered_by(&shell.sh(&get("-4 https://example.test/"))?, at::EXAMPLE)?;
        shell.background("sleep 600")?;
        shell.ok("(setsid sleep 601 >/dev/null 2>&1 &) ")?;
        shell
    };
    let held = shell.held(&world.host)?;
    let (processes, namespaces, kernel_objects) = held.counts();
    ensure!(
        processes >= 4,
        "namegate, an init, a shell and its children: {held:?}"
    );
    ensure!(namespaces >= 2, "a pod and a gateway: {held:?}");
    ensure!(kernel_objects >= 4, "programs, maps, links: {held:?}");
    Ok((shell.into_running(), held))
}

fn gone(world: &World, before: &Machine, held: &Held) -> Result<()> {
    held.gone()?;
    before.restored(&world.host)
}

#[test]
fn after_a_normal_exit_nothing_is_left() -> Result<()> {
    let world = closed_machine()?;
    let before = Machine::look(&world.host)?;
    // The end of its input ends the shell; its children are still there then.
    let (running, held) = busy(&world)?;
    running.finish()?.expect(0)?;
    gone(&world, &before, &held)
}

#[test]
fn after_kill_nine_nothing_is_left_and_the_command_is_dead() -> Result<()> {
    let world = closed_machine()?;
    let before = Machine::look(&world.host)?;
    let mut shell = world.run_with_dns()?.bare().allow("example.test").shell()?;
    answered_by(&shell.sh(&get("-4 https://example.test/"))?, at::EXAMPLE)?;
    shell.background("sleep 600")?;
    shell.ok("(setsid sleep 601 >/dev/null 2>&1 &) ")?;
    let held = shell.held(&world.host)?;
    ensure!(
        held.counts().0 >= 4 && held.counts().1 >= 2 && held.counts().2 >= 4,
        "{held:?}"
    );
    shell.signal(Signal::SIGKILL)?;
    gone(&world, &before, &held)
}

#[test]
fn after_kill_nine_in_the_middle_of_starting_nothing_is_left() -> Result<()> {
    let world = closed_machine()?;
    let before = Machine::look(&world.host)?;
    for delay in [5, 20, 40, 80, 120, 200, 300] {
        let running = world
            .run_with_dns()?
            .allow("example.test")
            .start(&["sleep", "600"], Stdio::null())?;
        std::thread::sleep(Duration::from_millis(delay));
        let held = running.held(&world.host)?;
        running.signal(Signal::SIGKILL)?;
        gone(&world, &before, &held)?;
    }
    Ok(())
}

#[test]
fn after_the_command_was_killed_nothing_is_left() -> Result<()> {
    let world = closed_machine()?;
    let before = Machine::look(&world.host)?;
    let (running, held) = busy_sleep(&world)?;
    nix::sys::signal::kill(
        Pid::from_raw(running.command_pid("sleep 600")?),
        Signal::SIGKILL,
    )?;
    assert_eq!(running.finish()?.status, 137);
    gone(&world, &before, &held)
}

fn busy_sleep(world: &World) -> Result<(Running, Held)> {
    let running = world
        .run_with_dns()?
        .allow("example.test")
        .start(&["sleep", "600"], Stdio::null())?;
    running.command_pid("sleep 600")?;
    let held = running.held(&world.host)?;
    ensure!(held.counts().1 >= 2, "{held:?}");
    Ok((running, held))
}

#[test]
fn a_signal_reaches_the_command_and_nothing_is_left() -> Result<()> {
    let world = closed_machine()?;
    let before = Machine::look(&world.host)?;
    for (signal, status) in [
        (Signal::SIGTERM, 143),
        (Signal::SIGHUP, 129),
        (Signal::SIGINT, 130),
    ] {
        let (running, held) = busy_sleep(&world)?;
        running.signal(signal)?;
        assert_eq!(running.finish()?.status, status, "{signal}");
        gone(&world, &before, &held)?;
    }
    Ok(())
}

#[test]
fn ctrl_c_on_a_terminal_reaches_the_command_once_and_nothing_is_left() -> Result<()> {
    let world = closed_machine()?;
    let before = Machine::look(&world.host)?;
    // `script` gives namegate a terminal; the byte 3 makes the terminal interrupt its foreground group.
    let job = "trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.1; done";
    let (command, _files, _) = world
        .run_with_dns()?
        .bare()
        .allow("example.test")
        .prepare(&["bash", "-c", job])?;
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")))
        .collect();
    let mut terminal = std::process::Command::new("script");
    // `exec`: whatever SHELL is, it must not stand between the terminal and namegate and be interrupted itself.
    terminal
        .args(["-qefc", &format!("exec {}", words.join(" ")), "/dev/null"])
        .stdin(Stdio::piped());
    let mut process = Process::with_input("script", &mut terminal)?;
    until(Duration::from_secs(20), "the command to be ready", || {
        process.stdout().contains("ready").then_some(())
    })?;
    let program = format!("{} run", support::tools::namegate()?.display());
    let namegate = until(Duration::from_secs(30), "namegate", || {
        support::process::family(process.pid())
            .into_iter()
            .find(|pid| support::process::command_line(*pid).starts_with(&program))
    })?;
    let held = Held::by(namegate, &world.host)?;
    let mut keyboard = process.child().stdin.take().expect("a keyboard");
    std::io::Write::write_all(&mut keyboard, &[3])?;
    let output = process.wait(Duration::from_secs(20))?;
    assert_eq!(output.status, 5, "{output:?}");
    assert_eq!(
        output.stdout.matches("interrupted").count(),
        1,
        "{output:?}"
    );
    gone(&world, &before, &held)
}

#[test]
fn the_whole_job_interrupted_at_once_leaves_nothing() -> Result<()> {
    let world = closed_machine()?;
    let before = Machine::look(&world.host)?;
    let (mut command, _files, _) = world
        .run_with_dns()?
        .allow("example.test")
        .prepare(&["sleep", "600"])?;
    let mut process = Process::spawn("namegate", command.process_group(0))?;
    until(Duration::from_secs(20), "the command", || {
        support::process::family(process.pid())
            .into_iter()
            .find(|pid| support::process::command_line(*pid).starts_with("sleep 600"))
    })?;
    let held = Held::by(process.pid(), &world.host)?;
    killpg(Pid::from_raw(process.pid()), Signal::SIGINT)?;
    let output = process.wait(Duration::from_secs(20))?;
    assert_ne!(output.status, 0, "{output:?}");
    gone(&world, &before, &held)
}

#[test]
fn several_at_once_do_not_disturb_each_other_and_the_last_one_restores_the_machine() -> Result<()> {
    let world = closed_machine()?;
    let before = Machine::look(&world.host)?;
    let mut held = Vec::new();
    let mut shells = Vec::new();
    for name in [
        "example.test",
        "api.example.test",
        "other.test",
        "example.test",
    ] {
        shells.push((name, world.run_with_dns()?.allow(name).shell()?));
    }
    for (name, shell) in &mut shells {
        answered_by(
            &shell.sh(&get(&format!("-4 https://{name}/")))?,
            address_of(name),
        )?;
        held.push(shell.held(&world.host)?);
    }
    // One ends well, one is killed; the others go on, also with new names and connections.
    let (_, first) = shells.remove(0);
    first.finish()?.expect(0)?;
    let (_, second) = shells.remove(0);
    second.signal(Signal::SIGKILL)?;
    drop(second);
    std::thread::sleep(Duration::from_millis(500));
    for (name, shell) in &mut shells {
        answered_by(
            &shell.sh(&get(&format!("-4 https://{name}/")))?,
            address_of(name),
        )?;
        answered_by(
            &shell.sh(&get(&format!("-6 https://{name}/")))?,
            address6_of(name),
        )?;
    }
    // A newcomer finds its place while others run.
    let done = world
        .run_with_dns()?
        .allow("example.test")
        .script(&get("-4 https://example.test/"))?;
    assert_eq!(done.expect(0)?.split_whitespace().nth(1), Some(at::EXAMPLE));
    for (_, shell) in shells {
        shell.finish()?.expect(0)?;
    }
    for held in &held {
        held.gone()?;
    }
    before.restored(&world.host)
}

fn address_of(name: &str) -> &'static str {
    match name {
        "example.test" => at::EXAMPLE,
        "api.example.test" => at::API,
        _ => at::OTHER,
    }
}

fn address6_of(name: &str) -> &'static str {
    match name {
        "example.test" => at::EXAMPLE6,
        _ => at::OTHER6,
    }
}

#[test]
fn a_run_that_cannot_start_leaves_nothing() -> Result<()> {
    let world = closed_machine()?;
    let before = Machine::look(&world.host)?;
    for argv in [["/nonexistent/program"], ["/etc/hostname"]] {
        let done = world.run_with_dns()?.allow("example.test").command(&argv)?;
        assert!([126, 127].contains(&done.status), "{done:?}");
        before.restored(&world.host)?;
    }
    let done = world
        .run_with_dns()?
        .policy("kind: [broken")?
        .command(&["true"])?;
    assert_eq!(done.status, 125, "{done:?}");
    before.restored(&world.host)
}
