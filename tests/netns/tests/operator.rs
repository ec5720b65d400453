//! The operator's view of a run: the name cache, the selectors, the status, the verdicts.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns::{answered_by, dig, get, knock};
use serde_json::Value;
use support::{Process, World, tools, until, world::address as at};

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn the_cache_lists_endpoint_source_name_ttl_expiry_and_addresses() -> Result<()> {
    let world = World::new()?;
    let mut pod = world
        .run_with_dns()?
        .allow("example.test")
        .allow("*.example.test")
        .shell()?;
    pod.ok(&dig("+short example.test A"))?;
    pod.ok(&dig("+short example.test AAAA"))?;
    pod.ok(&dig("+short api.example.test"))?;
    let client = pod.client(&world.host);
    let table = client.text(&["fqdn", "cache", "list"])?;
    let header: Vec<&str> = table
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert_eq!(
        header,
        ["Endpoint", "Source", "FQDN", "TTL", "ExpirationTime", "IPs"]
    );
    for expected in [
        "example.test.",
        "api.example.test.",
        at::EXAMPLE,
        at::API,
        "lookup",
    ] {
        ensure!(
            table.contains(expected),
            "`{expected}` is missing in\n{table}"
        );
    }
    let rows = client.json(&["fqdn", "cache", "list"])?;
    let rows = rows.as_array().context("a list")?;
    let row = rows
        .iter()
        .find(|row| text(row, "fqdn") == "api.example.test.")
        .context("the row")?;
    assert_eq!(text(row, "source"), "lookup");
    assert_eq!(row.get("ttl").and_then(Value::as_u64), Some(300));
    assert_eq!(row.get("ips"), Some(&serde_json::json!([at::API])));
    ensure!(
        row.get("endpoint").and_then(Value::as_u64).is_some(),
        "{row}"
    );
    ensure!(
        text(row, "expiration-time") > text(row, "lookup-time"),
        "{row}"
    );
    let all: String = rows
        .iter()
        .filter(|row| text(row, "fqdn") == "example.test.")
        .map(ToString::to_string)
        .collect();
    ensure!(
        all.contains(at::EXAMPLE) && all.contains(at::EXAMPLE6),
        "both families: {all}"
    );

    let only = client.json(&["fqdn", "cache", "list", "-p", "api.*.test"])?;
    assert_eq!(only.as_array().map(Vec::len), Some(1), "{only}");
    let none = client.json(&["fqdn", "cache", "list", "-p", "*.nowhere"])?;
    assert_eq!(none, serde_json::json!([]));
    ensure!(
        client
            .text(&["fqdn", "cache", "list", "-o", "yaml"])?
            .contains("fqdn: api.example.test."),
        "yaml too"
    );
    let wrong = client.output(&["fqdn", "cache", "list", "-p", "%%"])?;
    ensure!(
        wrong.status != 0 && wrong.stderr.contains("%%"),
        "{wrong:?}"
    );
    let cleaned = client.json(&["fqdn", "cache", "clean", "-p", "api.example.test"])?;
    assert_eq!(cleaned, serde_json::json!({"names": 1, "addresses": 1}));
    let left = client.json(&["fqdn", "cache", "list", "-p", "api.*.test"])?;
    assert_eq!(left, serde_json::json!([]));
    ensure!(
        pod.sh(&knock(
            "-4 --resolve api.example.test:443:203.0.113.11 https://api.example.test/"
        ))?
        .status
            != 0,
        "forgotten is closed"
    );
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn a_run_lists_who_is_who_and_what_is_in_the_kernel_as_an_agent_does() -> Result<()> {
    let world = World::new()?;
    let mut pod = world.run_with_dns()?.allow("example.test").shell()?;
    pod.ok(&dig("+short example.test A"))?;
    answered_by(&pod.sh(&get("-4 https://example.test/"))?, at::EXAMPLE)?;
    let client = pod.client(&world.host);
    let rows = |words: &[&str]| -> Result<Vec<Value>> {
        let list = client.json(words)?;
        Ok(list.as_array().context("a list")?.clone())
    };
    let endpoints = rows(&["endpoint", "list"])?;
    assert_eq!(endpoints.len(), 1, "{endpoints:?}");
    let one = client.json(&["endpoint", "get", "1"])?;
    assert_eq!(text(&one, "State"), "enforcing");
    ensure!(
        text(&one, "Policies").contains("CiliumNetworkPolicy"),
        "{one}"
    );
    let number = one.get("Identity").context("an identity")?.to_string();
    let identity = client.text(&["identity", "get", &number])?;
    ensure!(
        identity.contains("k8s:io.kubernetes.pod.namespace="),
        "{identity}"
    );
    let identities = rows(&["identity", "list"])?;
    let learned = rows(&["bpf", "learned", "list"])?;
    let row = learned
        .iter()
        .find(|row| text(row, "Address") == at::EXAMPLE)
        .with_context(|| format!("{learned:?}"))?;
    let who = identities
        .iter()
        .find(|who| who.get("Identity") == row.get("Identity"))
        .context("the identity behind the address")?;
    assert_eq!(text(who, "Labels"), "fqdn:example.test");
    let policy = client.text(&["policy", "get", "1"])?;
    ensure!(
        policy.contains("fqdn:example.test") && policy.contains("Deny (default)"),
        "{policy}"
    );
    ensure!(
        rows(&["bpf", "ct", "list"])?
            .iter()
            .any(|row| text(row, "Peer") == at::EXAMPLE),
        "the connection"
    );
    let ipcache = client.text(&["bpf", "ipcache", "list"])?;
    ensure!(
        ipcache.contains("reserved:host") && ipcache.contains("kube-dns"),
        "{ipcache}"
    );
    ensure!(
        client
            .text(&["bpf", "policy", "list"])?
            .contains("RedirectDns")
    );
    ensure!(
        client
            .text(&["bpf", "metrics", "list", "-o", "yaml"])?
            .contains("What: Established")
    );
    ensure!(client.output(&["identity", "get", "nobody"])?.status != 0);
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn the_selectors_in_force_are_listed_with_what_they_match() -> Result<()> {
    let world = World::new()?;
    let mut pod = world
        .run_with_dns()?
        .allow("example.test")
        .allow("*.example.test")
        .shell()?;
    pod.ok(&dig("+short api.example.test"))?;
    let names = pod.client(&world.host).json(&["fqdn", "names"])?;
    let rows = names
        .get("FQDNPolicySelectors")
        .and_then(Value::as_array)
        .context("selectors")?;
    let selectors: Vec<&str> = rows.iter().map(|row| text(row, "selectorString")).collect();
    ensure!(
        selectors.iter().any(|text| text.contains("*.example.test")),
        "{names}"
    );
    assert_eq!(rows.len(), 2, "{names}");
    let star = rows
        .iter()
        .find(|row| text(row, "selectorString").contains("*.example.test"))
        .context("the pattern")?;
    ensure!(star.to_string().contains(at::API), "{star}");
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn the_status_tells_who_is_enforced_and_how() -> Result<()> {
    let world = World::new()?;
    let mut pod = world
        .run_with_dns()?
        .allow("example.test")
        .label("app=tested")
        .shell()?;
    pod.ok(&dig("+short example.test"))?;
    let client = pod.client(&world.host);
    let status = client.json(&["status"])?;
    assert_eq!(
        status.get("pid").and_then(Value::as_i64),
        Some(i64::from(pod.pid()))
    );
    assert_eq!(text(&status, "mode"), "enforcing");
    ensure!(status.to_string().contains("app=tested"), "{status}");
    ensure!(status.to_string().contains(at::RESOLVER), "{status}");
    let table = client.text(&["status"])?;
    ensure!(
        table.contains("app=tested") && table.contains("enforcing"),
        "{table}"
    );
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn observe_prints_one_line_per_verdict_with_names_and_reasons() -> Result<()> {
    let world = World::new()?;
    let mut pod = world.run_with_dns()?.allow("example.test").shell()?;
    let mut follower = Process::spawn(
        "observe",
        world
            .host
            .command(tools::namegate()?)
            .args(["observe", "-f", "-o", "json", "--socket"])
            .arg(pod.socket()),
    )?;
    std::thread::sleep(Duration::from_millis(300));
    answered_by(&pod.sh(&get("-4 https://example.test/"))?, at::EXAMPLE)?;
    pod.sh(&knock("-4 http://example.test/"))?;
    let client = pod.client(&world.host);
    let is = |flow: &Value, verdict: &str, port: u64| {
        text(flow, "verdict") == verdict
            && flow.pointer("/IP/destination").and_then(Value::as_str) == Some(at::EXAMPLE)
            && flow
                .pointer("/l4/TCP/destination_port")
                .and_then(Value::as_u64)
                == Some(port)
    };
    let flows = until(Duration::from_secs(30), "both verdicts", || {
        let flows = client.json_lines(&["observe", "--last", "200"]).ok()?;
        (flows.iter().any(|f| is(f, "FORWARDED", 443))
            && flows.iter().any(|f| is(f, "DROPPED", 80)))
        .then_some(flows)
    })?;
    let dropped = flows
        .iter()
        .find(|flow| is(flow, "DROPPED", 80))
        .context("dropped")?;
    assert_eq!(
        dropped.get("drop_reason").and_then(Value::as_u64),
        Some(133)
    );
    assert_eq!(text(dropped, "drop_reason_desc"), "POLICY_DENIED");
    assert_eq!(text(dropped, "traffic_direction"), "EGRESS");
    ensure!(
        dropped
            .get("destination_names")
            .is_some_and(|names| names.to_string().contains("example.test")),
        "{dropped}"
    );
    let asked = flows.iter().any(|flow| {
        flow.pointer("/l7/dns/query").and_then(Value::as_str) == Some("example.test.")
            && flow
                .pointer("/l7/dns/ips")
                .is_some_and(|ips| ips.to_string().contains(at::EXAMPLE))
    });
    ensure!(asked, "lookups are told too: {flows:?}");
    let only = client.json_lines(&["observe", "--last", "200", "--verdict", "DROPPED"])?;
    ensure!(
        !only.is_empty() && only.iter().all(|flow| text(flow, "verdict") == "DROPPED"),
        "{only:?}"
    );
    let yaml = client.text(&["observe", "--last", "200", "-o", "yaml"])?;
    ensure!(
        yaml.starts_with("---\n") && yaml.contains("verdict: DROPPED"),
        "{yaml}"
    );
    let compact = client.text(&["observe", "--last", "200"])?;
    ensure!(
        compact
            .lines()
            .any(|line| line.contains("DENIED") && line.contains("example.test")),
        "{compact}"
    );
    until(Duration::from_secs(30), "the follower", || {
        let followed = follower.stdout();
        (followed.contains("FORWARDED") && followed.contains("DROPPED")).then_some(())
    })?;
    pod.finish()?.expect(0)?;
    // With the run its stream ends.
    follower.wait(Duration::from_secs(30))?;
    Ok(())
}

#[test]
fn a_client_without_a_run_is_told_and_a_run_has_its_own_place() -> Result<()> {
    let world = World::new()?;
    let nobody = support::namegate::Client::new(&world.host, world.files().join("nobody.sock"));
    let output = nobody.output(&["status"])?;
    ensure!(
        output.status != 0 && output.stderr.contains("nobody.sock"),
        "{output:?}"
    );
    // Without --socket the run has its own place, and goes away with it.
    let running = world
        .run_with_dns()?
        .bare()
        .allow("example.test")
        .start(&["sleep", "30"], std::process::Stdio::null())?;
    let socket = std::path::PathBuf::from(format!("/run/namegate/run-{}.sock", running.pid()));
    until(Duration::from_secs(20), "the socket", || {
        socket.exists().then_some(())
    })?;
    let client = support::namegate::Client::new(&world.host, socket.clone());
    assert_eq!(
        client.json(&["status"])?.get("pid").and_then(Value::as_i64),
        Some(i64::from(running.pid()))
    );
    running.signal(nix::sys::signal::Signal::SIGTERM)?;
    running.finish()?;
    ensure!(!socket.exists(), "the socket is gone with its run");
    Ok(())
}

#[test]
fn with_several_runs_the_client_asks_which_and_with_one_it_finds_it() -> Result<()> {
    let world = World::new()?;
    // A /run/namegate of its own: other tests have sockets in the machine's.
    let holder = Process::spawn(
        "holder",
        std::process::Command::new("unshare").args(["--mount", "--propagation", "private", "--", "bash", "-c"]).arg(
            "mkdir -p /run/namegate && mount -t tmpfs none /run/namegate && echo mounted && exec sleep 600",
        ),
    )?;
    until(Duration::from_secs(30), "the mount", || {
        holder.stdout().contains("mounted").then_some(())
    })?;
    let beside = |command: &std::process::Command| {
        let mut wrapped = std::process::Command::new("nsenter");
        wrapped
            .args(["-t", &holder.pid().to_string(), "-m", "--"])
            .arg(command.get_program())
            .args(command.get_args());
        wrapped
    };
    let status = || -> Result<support::Output> {
        let mut command = world.host.command(tools::namegate()?);
        support::process::output_of(&mut beside(command.args(["status", "-o", "json"])))
    };
    let nobody = status()?;
    ensure!(
        nobody.status != 0 && nobody.stderr.contains("/run/namegate"),
        "{nobody:?}"
    );
    let mut runs = Vec::new();
    for count in 1..=2 {
        let (command, files, _) = world
            .run_with_dns()?
            .bare()
            .allow("example.test")
            .prepare(&["sleep", "300"])?;
        let run = Process::spawn("namegate", &mut beside(&command))?;
        let socket = format!("run-{}.sock", run.pid());
        until(Duration::from_secs(20), "its socket", || {
            let path = format!("/proc/{}/root/run/namegate/{socket}", holder.pid());
            std::path::Path::new(&path).exists().then_some(())
        })?;
        runs.push((run, files, socket));
        let told = status()?;
        if count == 1 {
            let status: Value = serde_json::from_str(&told.stdout)?;
            let pid = runs.first().map(|(run, ..)| i64::from(run.pid()));
            assert_eq!(
                status.get("pid").and_then(Value::as_i64),
                pid,
                "the only one is found"
            );
        } else {
            ensure!(told.status != 0, "{told:?}");
            for (_, _, socket) in &runs {
                ensure!(told.stderr.contains(socket), "each is listed: {told:?}");
            }
        }
    }
    Ok(())
}
