//! `namegate agent` seen by its operator: lists, filters, metrics, health.

mod agent;

use std::{io::ErrorKind, time::Duration};

use agent::{Node, Pod, answered, names};
use anyhow::{Context, Result, ensure};
use netns::refused;
use serde_json::Value;
use support::{World, until, world::address as at};

fn count(rows: &Value, wanted: impl Fn(&Value) -> bool) -> usize {
    rows.as_array()
        .into_iter()
        .flatten()
        .filter(|row| wanted(row))
        .count()
}

#[test]
fn lists_show_who_is_who_and_what_is_in_the_kernel() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &names("web", "{}", &["example.test"]))?;
    node.configure(
        &[(&pod, "{app: web}")],
        "sizes: {endpoints: 8, learned: 4096}",
    )?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    pod.resolve("example.test")?;
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    let client = node.client();

    let endpoints = client.text(&["endpoint", "list"])?;
    ensure!(
        endpoints.contains("pod1") && endpoints.contains("enforcing"),
        "{endpoints}"
    );
    let one = client.json(&["endpoint", "get", "pod1"])?;
    assert_eq!(one.get("State"), Some(&Value::from("enforcing")), "{one}");
    ensure!(client.output(&["endpoint", "get", "nobody"])?.status != 0);

    let identities = client.json(&["identity", "list"])?;
    assert_eq!(
        count(&identities, |row| row
            .to_string()
            .contains("fqdn:example.test")),
        1,
        "{identities}"
    );
    let host = client.text(&["identity", "get", "1"])?;
    ensure!(host.contains("reserved:host"), "{host}");

    let policy = client.text(&["policy", "get", "pod1"])?;
    ensure!(
        policy.contains("fqdn:example.test") && policy.contains("web.yaml:"),
        "{policy}"
    );
    let learned = client.json(&["bpf", "learned"])?;
    assert_eq!(
        count(&learned, |row| row.get("Address")
            == Some(&Value::from(at::EXAMPLE))),
        1,
        "{learned}"
    );
    let flows = client.json(&["bpf", "ct", "list"])?;
    ensure!(
        count(&flows, |row| row.get("Peer")
            == Some(&Value::from(at::EXAMPLE)))
            >= 1,
        "{flows}"
    );
    let ipcache = client.text(&["bpf", "ipcache"])?;
    ensure!(
        ipcache.contains(&pod.v4) && ipcache.contains("kube-dns"),
        "{ipcache}"
    );
    ensure!(client.text(&["bpf", "policy"])?.contains("RedirectDns"));
    // The first packet of the connection was decided by the rule.
    let decided = || {
        let policy = client.json(&["policy", "get", "pod1"])?;
        let named = policy.as_array().into_iter().flatten().find(|row| {
            row.get("Peer") == Some(&Value::from("fqdn:example.test"))
                && row.get("Port") == Some(&Value::from("443/TCP"))
        });
        let packets = named.and_then(|row| row.get("Packets")?.as_u64());
        packets.with_context(|| policy.to_string())
    };
    let before = decided()?;
    ensure!(before >= 1, "{policy}");
    let in_kernel = client.json(&["bpf", "policy", "list"])?;
    ensure!(
        count(&in_kernel, |row| row.get("Packets").and_then(Value::as_u64)
            >= Some(before))
            >= 1,
        "{in_kernel}"
    );
    // A rule that stays goes on counting while others come.
    node.policy("more.yaml", &names("more", "{}", &["api.example.test"]))?;
    until(
        Duration::from_secs(20),
        "the new rule to be in force",
        || {
            let policy = client.text(&["policy", "get", "pod1"]).ok()?;
            policy.contains("fqdn:api.example.test").then_some(())
        },
    )?;
    ensure!(decided()? >= before);
    ensure!(client.text(&["bpf", "metrics"])?.contains("Established"));

    let status = client.json(&["status"])?;
    let number = |value: &Value, path| value.pointer(path).and_then(Value::as_u64);
    let maps = status.pointer("/agent/maps").and_then(Value::as_array);
    let maps = maps.context("maps")?;
    let sum: u64 = maps.iter().filter_map(|map| number(map, "/bytes")).sum();
    ensure!(sum > 0 && number(&status, "/agent/memory-budget") == Some(sum));
    let learned = maps
        .iter()
        .find(|map| map.get("map") == Some(&Value::from("LEARNED")));
    ensure!(learned.and_then(|map| number(map, "/entries")) == Some(4096));
    let table = client.text(&["status"])?;
    ensure!(table.contains("MiB when all are full") && table.contains("LEARNED"));
    ensure!(node.log().contains(&format!("all are full bytes={sum}")));
    Ok(())
}

#[test]
fn observe_shows_what_was_asked_for() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let (one, two) = (Pod::routed(&world, 1)?, Pod::routed(&world, 2)?);
    node.policy("web.yaml", &names("web", "{}", &["example.test"]))?;
    node.configure(&[(&one, "{app: web}"), (&two, "{app: db}")], "")?;
    node.start()?;
    for pod in [&one, &two] {
        node.until_state(pod, "enforcing")?;
        pod.resolve("example.test")?;
        answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
        refused(&pod.knock("evil.test", at::EVIL)?)?;
    }
    let client = node.client();
    let observe = |words: &[&str]| -> Result<Vec<Value>> {
        client.json_lines(&[&["observe", "--last", "1000"], words].concat())
    };
    let all = observe(&[])?;
    let of_one = observe(&["-e", "pod1"])?;
    ensure!(
        !of_one.is_empty() && of_one.len() < all.len(),
        "{}",
        of_one.len()
    );
    ensure!(
        of_one.iter().all(|r| r.to_string().contains(&one.v4)),
        "{of_one:?}"
    );
    let evil = observe(&["--address", at::EVIL])?;
    ensure!(!evil.is_empty() && evil.iter().all(|r| r.to_string().contains(at::EVIL)));
    ensure!(
        evil.iter()
            .all(|r| r.get("verdict") == Some(&Value::from("DROPPED")))
    );
    let named = observe(&["--name", "*.test"])?;
    ensure!(!named.is_empty() && named.len() < all.len());
    ensure!(observe(&["--name", "nothing.here"])?.is_empty());
    let dns = observe(&["--port", "53"])?;
    ensure!(
        !dns.is_empty() && dns.iter().all(|r| r.get("l7").is_some()),
        "{dns:?}"
    );
    ensure!(observe(&["--direction", "egress", "--port", "443"])?.len() >= 4);
    ensure!(observe(&["--direction", "ingress", "--port", "443"])?.is_empty());
    ensure!(observe(&["--since", "1h"])?.len() == all.len());
    ensure!(observe(&["--since", "2100-01-01T00:00:00Z"])?.is_empty());
    ensure!(client.output(&["observe", "--name", "%%"])?.status != 0);
    Ok(())
}

#[test]
fn metrics_and_health_have_a_port_of_their_own() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &names("web", "{}", &["example.test"]))?;
    node.configure(&[(&pod, "{app: web}")], "metrics: 127.0.0.1:9963")?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    pod.resolve("example.test")?;
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    refused(&pod.knock("evil.test", at::EVIL)?)?;
    let fetch = |path: &str| {
        let url = format!("http://127.0.0.1:9963/{path}");
        world
            .host
            .output("curl", &["-sS", "-w", "%{http_code}", &url])
    };
    let health = fetch("healthz")?;
    ensure!(health.stdout.ends_with("200"), "{health:?}");
    ensure!(fetch("readyz")?.stdout.ends_with("200"));
    let text = fetch("metrics")?.ok("metrics")?;
    let value = |name: &str| -> Result<f64> {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value
            .and_then(|value| value.parse().ok())
            .with_context(|| format!("no {name} in {text}"))
    };
    ensure!(value("namegate_endpoints{state=\"enforcing\"}")? == 1.0);
    ensure!(
        value("namegate_packets_dropped_total{reason=\"POLICY_DENIED\",direction=\"egress\"}")?
            >= 1.0,
        "{text}"
    );
    ensure!(
        value("namegate_packets_forwarded_total{what=\"established\",direction=\"egress\"}")?
            >= 1.0
    );
    ensure!(value("namegate_dns_queries_total{result=\"answered\"}")? >= 1.0);
    ensure!(value("namegate_policy_load_failures_total")? == 0.0);
    ensure!(value("namegate_policies ")? == 1.0);
    ensure!(value("namegate_dns_steered ")? == 1.0);
    ensure!(value("namegate_policy_stale ")? == 0.0);
    ensure!(value("namegate_map_capacity{map=\"learned\"}")? == 131_072.0);
    ensure!(value("namegate_map_entries{map=\"policy\"}")? >= 1.0);
    ensure!(value("namegate_events_lost_total{what=\"eventlost\"}")? == 0.0);
    ensure!(text.trim_end().contains("# EOF"), "{text}");
    node.policy("bad.yaml", "kind: [")?;
    until(
        Duration::from_secs(30),
        "the failure in the metrics",
        || {
            let text = fetch("metrics").ok()?.stdout;
            (text.contains("namegate_policy_load_failures_total 1")
                && text.contains("namegate_policy_stale 1"))
            .then_some(())
        },
    )?;
    // Healthy still: the last good policies are in force.
    ensure!(fetch("healthz")?.stdout.ends_with("200"));
    Ok(())
}

#[test]
fn a_service_manager_hears_of_readiness_and_life() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &names("web", "{}", &["example.test"]))?;
    node.configure(&[(&pod, "{app: web}")], "metrics: null")?;
    let path = node.files().join("notify.sock");
    let manager = std::os::unix::net::UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(Duration::from_secs(20)))?;
    let next = || -> Result<String> {
        let mut room = [0; 512];
        let len = loop {
            match manager.recv(&mut room) {
                // With a timeout the kernel leaves it to us to begin again.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                received => break received.context("a message to the service manager")?,
            }
        };
        Ok(String::from_utf8_lossy(room.get(..len).unwrap_or_default()).into_owned())
    };
    node.launch_with(&[
        ("NOTIFY_SOCKET", &path.display().to_string()),
        ("WATCHDOG_USEC", "3000000"),
    ])?;
    let mut heard = Vec::new();
    while heard
        .iter()
        .filter(|said: &&String| said.contains("WATCHDOG=1"))
        .count()
        < 4
    {
        heard.push(next()?);
    }
    ensure!(
        heard.iter().any(|said| said.contains("READY=1")),
        "{heard:?}"
    );
    node.ready()?;
    node.agent()?.signal(nix::sys::signal::Signal::SIGHUP)?;
    let mut heard = Vec::new();
    while !heard.iter().any(|said: &String| said.contains("READY=1")) {
        heard.push(next()?);
    }
    ensure!(
        heard.iter().any(|said| said.contains("RELOADING=1")),
        "{heard:?}"
    );
    node.stop()?;
    let mut last = next()?;
    while !last.contains("STOPPING=1") {
        last = next()?;
    }
    Ok(())
}

#[test]
fn the_log_has_levels_and_never_tells_who_reaches_whom() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &names("web", "{}", &["example.test"]))?;
    node.configure(&[(&pod, "{app: web}")], "metrics: null")?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    pod.resolve("example.test")?;
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    refused(&pod.knock("evil.test", at::EVIL)?)?;
    let log = node.log();
    for told in [
        " INFO policies in force policies=1",
        " INFO enforced endpoint=1",
    ] {
        ensure!(log.contains(told), "`{told}` is missing in\n{log}");
    }
    for secret in ["example.test", at::EXAMPLE, at::EVIL, &pod.v4] {
        ensure!(!log.contains(secret), "`{secret}` is in\n{log}");
    }
    node.stop()?;

    node.launch_with(&[("NAMEGATE_LOG", "warn")])?;
    node.until_state(&pod, "enforcing")?;
    node.policy("bad.yaml", "kind: [")?;
    until(Duration::from_secs(10), "the mistake", || {
        node.log().contains("ERROR").then_some(())
    })?;
    let log = node.log();
    ensure!(!log.contains(" INFO ") && log.contains("bad.yaml"), "{log}");
    Ok(())
}

#[test]
fn the_capabilities_of_the_unit_are_enough() -> Result<()> {
    let unit = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy/systemd/namegate.service");
    let unit = std::fs::read_to_string(unit)?;
    let setting = |name: &str| {
        let value = unit.lines().find_map(|line| line.strip_prefix(name));
        value.with_context(|| format!("no {name} in {unit}"))
    };
    ensure!(setting("Type=")? == "notify");
    ensure!(setting("WatchdogSec=")?.parse::<u32>()? > 0);
    ensure!(setting("ExecReload=")?.contains("-HUP $MAINPID"));
    let capabilities = setting("CapabilityBoundingSet=")?.to_lowercase();
    let kept = capabilities
        .split_whitespace()
        .map(|capability| format!(",+{}", capability.trim_start_matches("cap_")))
        .collect::<String>();

    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &names("web", "{}", &["example.test"]))?;
    node.configure(&[(&pod, "{app: web}")], "metrics: null")?;
    let set = format!("--bounding-set=-all{kept}");
    node.launch_by(&["setpriv", "--no-new-privs", &set], &[])?;
    node.ready()?;
    node.until_state(&pod, "enforcing")?;
    // Steering was tried by then.
    let status = node.client().json(&["status"])?;
    let problems = status.pointer("/agent/problems").and_then(Value::as_array);
    ensure!(problems.is_none_or(Vec::is_empty), "{status}");
    pod.resolve("example.test")?;
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    refused(&pod.knock("evil.test", at::EVIL)?)?;
    node.stop()?;
    Ok(())
}
