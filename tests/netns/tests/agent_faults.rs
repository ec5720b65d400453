//! `namegate agent` when something is full, read-only, broken or gone: bounded, told, never open.

mod agent;

use std::{fs, net::SocketAddr, path::Path, process::Command, time::Duration};

use agent::{Node, Pod, answered, names};
use anyhow::{Context, Result, ensure};
use netns::{far::Far, refused, traffic};
use nix::sys::signal::Signal;
use support::{World, process::output_of, tools, until, world::address as at};

const PATIENCE: Duration = Duration::from_secs(30);

/// A small file system of its own; unmounted on drop.
struct Disk<'p>(&'p Path);

impl<'p> Disk<'p> {
    fn new(at: &'p Path, options: &str) -> Result<Self> {
        fs::create_dir_all(at)?;
        output_of(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", options, "tmpfs"])
                .arg(at),
        )?
        .ok("mount")?;
        Ok(Self(at))
    }

    /// Leaves no room for another byte.
    fn fill(&self) -> Result<()> {
        let mut size = 64 << 10;
        let mut filler = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.0.join("filler"))?;
        while size > 0 {
            match std::io::Write::write(&mut filler, &vec![0; size]) {
                Ok(written) if written > 0 => {}
                _ => size /= 2,
            }
        }
        Ok(())
    }

    fn clear(&self) -> Result<()> {
        Ok(fs::remove_file(self.0.join("filler"))?)
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = output_of(Command::new("umount").arg("-l").arg(self.0));
    }
}

fn until_told(node: &Node<'_>, what: &str, told: bool) -> Result<()> {
    until(PATIENCE, &format!("`{what}` in status: {told}"), || {
        let status = node.client().text(&["status"]).ok()?;
        (status.contains(what) == told).then_some(())
    })
    .with_context(|| format!("{:?}\n{}", node.client().text(&["status"]), node.log()))
}

fn settle_in(node: &Node<'_>, pod: &Pod) -> Result<()> {
    ensure!(
        pod.resolve("example.test")?.contains(at::EXAMPLE),
        "{}",
        node.log()
    );
    answered(node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    refused(&pod.knock("evil.test", at::EVIL)?)
}

#[test]
fn a_full_disk_is_told_costs_no_verdict_and_is_made_up_for_when_there_is_room() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy(
        "web.yaml",
        &names("web", "{}", &["example.test", "api.example.test"]),
    )?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    let place = node.files().join("state");
    let disk = Disk::new(&place, "size=128k")?;
    disk.fill()?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    until_told(&node, "cannot be written", true)?;
    settle_in(&node, &pod)?;
    disk.clear()?;
    until_told(&node, "cannot be written", false)?;
    // Full again in the middle of its work: what is learned then is written down later.
    disk.fill()?;
    // The last block may have room for a few lines.
    until(PATIENCE, "a line that does not fit", || {
        pod.resolve("api.example.test").ok()?;
        let status = node.client().text(&["status"]).ok()?;
        status.contains("cannot be written").then_some(())
    })
    .with_context(|| node.log())?;
    answered(&node, &pod.get("api.example.test", at::API)?, at::API)?;
    disk.clear()?;
    until_told(&node, "cannot be written", false)?;
    node.kill()?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    let names = node.client().text(&["fqdn", "cache", "list"])?;
    ensure!(
        names.contains(" example.test.") && names.contains("api.example.test."),
        "{names}\n{}",
        node.log()
    );
    answered(&node, &pod.get("api.example.test", at::API)?, at::API)?;
    node.stop()?;
    Ok(())
}

#[test]
fn a_read_only_state_folder_is_told_and_a_restart_closes_what_it_cannot_explain() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &names("web", "{}", &["example.test"]))?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    let place = node.files().join("state");
    let _disk = Disk::new(&place, "ro,size=64k")?;
    for _ in 0..2 {
        node.start()?;
        node.until_state(&pod, "enforcing")?;
        until_told(&node, "cannot be written", true)?;
        let before = world.arrived(at::EXAMPLE, 443)?;
        refused(&pod.knock("example.test", at::EXAMPLE)?)?;
        assert_eq!(
            world.arrived(at::EXAMPLE, 443)?,
            before,
            "closed until it is resolved"
        );
        settle_in(&node, &pod)?;
        node.kill()?;
    }
    Ok(())
}

#[test]
fn whatever_the_journal_holds_nothing_opens_by_it() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &names("web", "{}", &["example.test"]))?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    settle_in(&node, &pod)?;
    let journal = node.files().join("state/journal");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let head = format!(
        "{{\"namegate\":{{\"format\":1,\"boot\":\"{}\"}}}}\n",
        boot.trim()
    );
    let lie = format!(
        "{{\"selector\":[1,\"*\"]}}\n{{\"name\":{{\"of\":1,\"name\":\"evil.test.\",\"ttl\":9999,\
         \"at\":1,\"ips\":[\"{}\"],\"until\":18446744073709551615}}}}\n",
        at::EVIL
    );
    let whole = fs::read(&journal)?;
    let half = whole.get(..whole.len() / 2).unwrap_or_default().to_vec();
    for content in [
        half,
        [head.as_bytes(), &vec![b'x'; 3 << 20], b"\n"].concat(),
        [head.as_bytes(), &[0xff; 4096]].concat(),
        [head.as_bytes(), lie.as_bytes()].concat(),
        vec![0; 1 << 20],
    ] {
        node.kill()?;
        fs::write(&journal, content)?;
        node.start()?;
        node.until_state(&pod, "enforcing")?;
        refused(&pod.knock("evil.test", at::EVIL)?)?;
        settle_in(&node, &pod)?;
    }
    assert_eq!(world.arrived(at::EVIL, 443)?, 0);
    Ok(())
}

#[test]
fn what_does_not_fit_a_map_is_refused_with_its_name_and_what_was_good_stays() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy(
        "web.yaml",
        &names("web", "{}", &["example.test", "huge.test"]),
    )?;
    node.configure(
        &[(&pod, "{app: web}")],
        "sizes: {endpoints: 2, learned: 8, policy: 48, prefixes: 4, addresses: 64}",
    )?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    settle_in(&node, &pod)?;
    // More addresses than an endpoint may learn: refused, and told to the client as a failure.
    let answer = pod.ok(&format!(
        "dig +tcp +time=5 +tries=1 @{} huge.test",
        at::RESOLVER
    ))?;
    ensure!(answer.contains("SERVFAIL"), "{answer}");
    refused(&pod.knock("huge.test", "203.0.113.100")?)?;
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    // More entries than POLICY holds, and more prefixes than IPCACHE holds: the last good ones stay.
    // Every other one: neighbours would share an entry.
    let ports = |from: u16| -> String {
        let ports = (from..from + 80).step_by(2);
        let ports = ports.map(|port| format!("{{port: \"{port}\", protocol: TCP}},"));
        format!("    - ports: [{}]\n", ports.collect::<String>())
    };
    let prefixes: String = (0..16).map(|n| format!("192.0.2.{}/28,", n * 16)).collect();
    let head = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: big}\nspec:\n  \
                endpointSelector: {}\n  egress:\n";
    let many_ports = format!(
        "{head}  - toCIDR: [192.0.2.0/24]\n    toPorts:\n{}{}",
        ports(1000),
        ports(2000)
    );
    let many_prefixes = format!("{head}  - toCIDR: [{prefixes}]\n");
    for (text, map) in [
        (many_ports, "map POLICY is full"),
        (many_prefixes, "map IPCACHE_LPM is full"),
    ] {
        node.policy("big.yaml", &text)?;
        until_told(&node, map, true)?;
        ensure!(
            node.log().contains("last good policies stay in force"),
            "{}",
            node.log()
        );
        answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
        refused(&pod.knock("evil.test", at::EVIL)?)?;
        node.remove_policy("big.yaml")?;
        until_told(&node, map, false)?;
        // What did not fit left nothing behind: another change goes through.
        node.policy("more.yaml", &names("more", "{}", &["api.example.test"]))?;
        pod.resolve("api.example.test")?;
        until(PATIENCE, "the change", || {
            pod.get("api.example.test", at::API)
                .ok()
                .filter(|got| got.status == 0)
        })
        .with_context(|| node.log())?;
        node.remove_policy("more.yaml")?;
    }
    Ok(())
}

#[test]
fn events_that_find_no_room_are_counted_and_nothing_else_suffers() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &names("web", "{}", &["example.test"]))?;
    node.configure(
        &[(&pod, "{app: web}")],
        "metrics: 127.0.0.1:9963\nsizes: {eventBytes: 4096}\nlimits: {eventsPerSecond: 1000000}",
    )?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    settle_in(&node, &pod)?;
    let evil = SocketAddr::new(at::ip(at::EVIL)?, 4000);
    let far = Far::count(
        &world.world,
        "uplink",
        &[&format!("ip daddr != {}", at::EVIL)],
    )?;
    node.agent()?.signal(Signal::SIGSTOP)?;
    let flood = traffic::datagrams(&pod.netns, evil)?;
    until(PATIENCE, "a flood", || (flood.steps() > 2000).then_some(()))?;
    let sent = flood.finish()?;
    // Enforcement does not wait for its agent.
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    node.agent()?.signal(Signal::SIGCONT)?;
    let metrics = || -> Result<String> {
        let url = "http://127.0.0.1:9963/metrics";
        world
            .host
            .output("curl", &["-sS", "--retry", "5", url])?
            .ok("metrics")
    };
    let value = |name: &str| -> Result<u64> {
        let text = metrics()?;
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .with_context(|| format!("{name} in {text}"))
    };
    let lost = value("namegate_events_lost_total{what=\"eventlost\"}")?;
    let dropped =
        value("namegate_packets_dropped_total{reason=\"POLICY_DENIED\",direction=\"egress\"}")?;
    println!("{sent} sent, {dropped} dropped, {lost} events found no room");
    ensure!(lost > 0 && dropped >= sent);
    assert_eq!(far.forbidden()?, 0);
    settle_in(&node, &pod)
}

#[test]
fn another_boot_clock_than_the_kernels_is_refused() -> Result<()> {
    let world = World::new()?;
    let node = Node::new(&world)?;
    node.policy("web.yaml", &names("web", "{}", &["example.test"]))?;
    node.configure(&[], "")?;
    let mut command = world.host.command("unshare");
    command
        .args(["--time", "--fork", "--boottime", "86400", "--"])
        .arg(tools::namegate()?)
        .args(["agent", "--config"])
        .arg(node.config());
    let output = output_of(&mut command)?;
    ensure!(
        output.status != 0 && output.stderr.contains("time namespace"),
        "{output:?}"
    );
    Ok(())
}
