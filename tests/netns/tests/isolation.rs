//! Between workloads: what one learned opens nothing for another, and nobody is somebody else.

use anyhow::{Context, Result, ensure};
use netns::policies::{DNS, policy};
use netns::{answered_by, connect, dig, get, knock, refused};
use support::frame::{Ethernet, gateway_address, hardware_address, inject, tcp_syn, udp};
use support::{Process, World, world::address as at};

#[test]
fn a_second_endpoint_gains_nothing_from_the_first_ones_lookups() -> Result<()> {
    let world = World::new()?;
    let mut first = world.run_with_dns()?.allow("example.test").shell()?;
    let mut second = world.run_with_dns()?.allow("example.test").shell()?;
    answered_by(&first.sh(&get("-4 https://example.test/"))?, at::EXAMPLE)?;
    let before = world.arrived(at::EXAMPLE, 443)?;
    refused(&second.sh(&knock(&format!("https://{}/", at::EXAMPLE)))?)?;
    assert_eq!(
        world.arrived(at::EXAMPLE, 443)?,
        before,
        "the second one's packets stay inside"
    );
    // Its own lookup is what counts, and the first one's end takes nothing from it.
    second.ok(&dig("+short example.test"))?;
    first.finish()?.expect(0)?;
    answered_by(
        &second.sh(&get(&format!("-k https://{}/", at::EXAMPLE)))?,
        at::EXAMPLE,
    )?;
    let report = second.finish()?.report()?;
    assert_eq!(
        report
            .denied_to(at::EXAMPLE, 443)
            .map(|denied| denied.reason),
        Some(133)
    );
    Ok(())
}

#[test]
fn one_pod_cannot_reach_another_nor_the_host_unasked() -> Result<()> {
    let world = World::new()?;
    let server = Process::spawn(
        "socat",
        world
            .host
            .command("socat")
            .args(["TCP6-LISTEN:4711,ipv6only=0,fork", "PIPE"]),
    )?;
    let mut first = world.run_with_dns()?.allow("*").shell()?;
    let second = world.run_with_dns()?.allow("*").shell()?;
    let address = first_address(&second, &world)?;
    refused(&first.sh(&connect(&address, 80))?)?;
    refused(&first.sh(&connect(at::HOST4, 4711))?)?;
    refused(&first.sh(&connect(at::HOST6, 4711))?)?;
    second.finish()?;
    let denied = first.finish()?.report()?;
    assert!(denied.denied_to(at::HOST4, 4711).is_some(), "{denied:?}");

    let host = policy(
        "host",
        &[
            DNS,
            "- toEntities: [host]\n  toPorts:\n  - ports: [{ port: \"4711\", protocol: TCP }]\n",
        ],
    );
    let mut third = world.run_with_dns()?.policy(&host)?.shell()?;
    third.ok(&format!(
        "exec 3<>/dev/tcp/{}/4711; echo hello >&3; read -t 5 -u 3 reply; test $reply = hello",
        at::HOST4
    ))?;
    third.finish()?.expect(0)?;
    drop(server);
    Ok(())
}

#[test]
fn an_address_the_host_gains_while_the_command_runs_is_the_hosts() -> Result<()> {
    const NEW: &str = "198.51.100.77";
    let world = World::new()?;
    let _server = Process::spawn(
        "socat",
        world
            .host
            .command("socat")
            .args(["TCP6-LISTEN:4712,ipv6only=0,fork", "PIPE"]),
    )?;
    let outside = policy("outside", &[DNS, "- toEntities: [world]\n"]);
    let mut pod = world.run_with_dns()?.policy(&outside)?.shell()?;
    pod.ok(&connect(at::EXAMPLE, 80))?;
    let added = world
        .host
        .command("ip")
        .args(["address", "add", &format!("{NEW}/32"), "dev", "lo"])
        .status()?;
    ensure!(added.success());
    pod.ok("sleep 0.3")?;
    refused(&pod.sh(&connect(NEW, 4712))?)?;
    // What is not the host's stays open.
    pod.ok(&connect(at::EXAMPLE, 80))?;
    let report = pod.finish()?.report()?;
    assert!(report.denied_to(NEW, 4712).is_some(), "{report:?}");
    Ok(())
}

#[test]
fn nobody_opens_a_connection_to_a_command() -> Result<()> {
    let world = World::new()?;
    let mut pod = world.run_with_dns()?.allow("example.test").shell()?;
    let address = first_address(&pod, &world)?;
    pod.ok("socat -u UDP4-RECVFROM:7777,fork CREATE:got & sleep 0.3")?;
    // From the host, which routes to the pod: nothing in between stands in the way.
    let sent = world
        .host
        .command("bash")
        .args(["-c", &format!("echo hello >/dev/udp/{address}/7777")])
        .status()?;
    ensure!(sent.success());
    pod.ok("sleep 0.3; test ! -e got")?;
    pod.finish()?.expect(0)?;
    Ok(())
}

/// The IPv4 address of a run's pod.
fn first_address(shell: &support::Shell, world: &World) -> Result<String> {
    let status = shell.client(&world.host).json(&["status"])?;
    let addresses = status
        .pointer("/endpoint/addresses")
        .and_then(|value| value.as_array())
        .cloned()
        .unwrap_or_default();
    let text = addresses
        .iter()
        .filter_map(|value| value.as_str())
        .find(|text| text.contains('.'));
    Ok(text
        .with_context(|| format!("no IPv4 address in {status}"))?
        .to_owned())
}

#[test]
fn spoofed_source_addresses_and_hardware_addresses_are_dropped_with_their_own_reasons() -> Result<()>
{
    let world = World::new()?;
    // Even a policy that allows everything does not let a pod be somebody else.
    let mut pod = world
        .run_with_dns()?
        .policy(&policy("all", &["- toEntities: [all]\n"]))?
        .shell()?;
    pod.ok(&get(&format!("-k https://{}/", at::EXAMPLE)))?;
    let inside = pod.command_pid("bash --noprofile")?;
    let own = first_address(&pod, &world)?;
    let interface = pod.ok("ip -o -4 route show default | sed 's/.* dev \\([^ ]*\\).*/\\1/'")?;
    let gateway = pod.ok("ip -o -4 route show default | sed 's/.* via \\([^ ]*\\).*/\\1/'")?;
    let mac = hardware_address(inside, &interface)?;
    let right = Ethernet {
        to: gateway_address(inside, at::ip(&gateway)?)?,
        from: mac,
    };
    let wrong = Ethernet {
        from: [0x02, 0, 0, 0, 0xbe, 0xef],
        ..right
    };
    let target = |address: &str, port: u16| -> Result<std::net::SocketAddr> {
        Ok(std::net::SocketAddr::new(at::ip(address)?, port))
    };
    let before = world.crossed()?.len();
    let spoofed4 = target("192.0.2.77", 40000)?;
    let spoofed6 = target("2001:db8:bad::1", 40000)?;
    let own4 = target(&own, 40001)?;
    for _ in 0..3 {
        inject(
            inside,
            &interface,
            &tcp_syn(right, spoofed4, target(at::EVIL, 443)?)?,
        )?;
        inject(
            inside,
            &interface,
            &udp(right, spoofed4, target(at::EVIL, 7)?, b"x")?,
        )?;
        inject(
            inside,
            &interface,
            &tcp_syn(right, spoofed6, target(at::EVIL6, 443)?)?,
        )?;
        inject(
            inside,
            &interface,
            &tcp_syn(wrong, own4, target(at::EVIL, 444)?)?,
        )?;
    }
    let crossed = world.crossed()?;
    let evil = [at::ip(at::EVIL)?, at::ip(at::EVIL6)?];
    let out = crossed
        .iter()
        .skip(before)
        .filter(|packet| evil.contains(&packet.to))
        .count();
    assert_eq!(out, 0, "nothing spoofed got out");
    // The same frame told truthfully does get out: what was tested is the spoofing.
    inject(
        inside,
        &interface,
        &tcp_syn(right, own4, target(at::EVIL, 445)?)?,
    )?;
    support::wait::until_true(
        std::time::Duration::from_secs(30),
        "the honest frame",
        || world.arrived(at::EVIL, 445).is_ok_and(|count| count > 0),
    )?;
    let flows = pod.client(&world.host).json_lines(&[
        "observe",
        "--last",
        "1000",
        "--verdict",
        "DROPPED",
    ])?;
    let reasons: Vec<u64> = flows
        .iter()
        .filter_map(|flow| flow.get("drop_reason")?.as_u64())
        .collect();
    ensure!(
        reasons.contains(&132) && reasons.contains(&130),
        "observe tells {reasons:?}"
    );
    let report = pod.finish()?.report()?;
    let reported: Vec<u32> = report.denied.iter().map(|row| row.reason).collect();
    ensure!(
        reported.contains(&132) && reported.contains(&130),
        "the report tells {report:?}"
    );
    Ok(())
}
