//! Who may reach whom: every kind of policy, peer, port and protocol, with real packets.
//!
//! In:  the rows of `matrix/cases/mod.rs`.
//! Out: for each line the packet's fate, and where it was dropped the side and the reason as the flow
//!      records tell them.
//! Not here: the rows themselves (`cases`), who they are about (`village`).

mod agent;
#[path = "matrix/cases/mod.rs"]
mod cases;
#[path = "matrix/village.rs"]
mod village;

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};
use netns::echo::{What, ask};
use serde_json::Value;
use support::{World, patience, world::address::ip};
use village::Village;

/// For an answer that should come; a busy machine is no failure.
const PATIENT: Duration = Duration::from_secs(8);
/// For one that should not: a drop is silent, and everybody is two veth pairs away.
const SHORT: Duration = Duration::from_millis(150);
/// For a record to appear.
const TOLD: Duration = Duration::from_secs(30);

/// One line of a case.
struct Line {
    text: &'static str,
    families: &'static [bool],
    from: &'static str,
    to: &'static str,
    /// None for a look-up alone.
    what: Option<What>,
    expected: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Arrives,
    Dropped { ingress: bool, reason: u64 },
    Refused,
}

impl Line {
    fn parse(text: &'static str) -> Result<Self> {
        let (families, rest): (&[bool], _) = match text.split_once(": ") {
            Some(("4", rest)) => (&[true], rest),
            Some(("6", rest)) => (&[false], rest),
            _ => (&[true, false], text),
        };
        let words: Vec<_> = rest.split(' ').collect();
        let [from, ">", to, what, "=", fate @ ..] = words.as_slice() else {
            bail!("`{text}` is no line");
        };
        let expected = match fate {
            ["ok"] => Fate::Arrives,
            ["refused"] => Fate::Refused,
            [side @ ("ingress" | "egress"), reason] => Fate::Dropped {
                ingress: *side == "ingress",
                reason: reason.parse()?,
            },
            _ => bail!("`{text}` has no fate"),
        };
        Ok(Self {
            text,
            families,
            from,
            to,
            what: match *what {
                "dns" => None,
                what => Some(what.parse()?),
            },
            expected,
        })
    }
}

#[test]
fn every_row_holds_on_the_wire_with_its_reason() -> Result<()> {
    let cases = cases::all();
    let world = World::new()?;
    let first = cases.first().context("cases")?;
    let village = Village::new(&world, &first.policies)?;
    let mut wrong = Vec::new();
    let (mut rows, mut tried) = (0, 0);
    for (at, case) in cases.iter().enumerate() {
        if at > 0 {
            village.enforce(&case.policies).context(case.name)?;
        }
        rows += 1;
        for text in case.lines {
            let line = Line::parse(text)?;
            for v4 in line.families {
                tried += 1;
                if let Err(error) = try_line(&village, &line, *v4) {
                    let family = if *v4 { "IPv4" } else { "IPv6" };
                    wrong.push(format!("{}: {text} ({family}): {error:#}", case.name));
                }
            }
        }
    }
    println!("{rows} policies, {tried} flows");
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(rows >= 94 && tried >= 390, "{rows} rows, {tried} flows");
    Ok(())
}

#[test]
fn a_world_that_changes_counts_at_once() -> Result<()> {
    let world = World::new()?;
    let policies = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
        metadata: {name: row, namespace: test}\nspec:\n  \
        endpointSelector: {matchLabels: {name: client}}\n  egress:\n  \
        - toServices: [{k8sService: {serviceName: git, namespace: test}}]\n  \
        - toEntities: [kube-apiserver]\n";
    let village = Village::new(&world, policies)?;
    let hold = |lines: &[&'static str]| -> Result<()> {
        for text in lines {
            let line = Line::parse(text)?;
            for v4 in line.families {
                try_line(&village, &line, *v4).with_context(|| village.node.log())?;
            }
        }
        Ok(())
    };
    hold(&[
        "4: client > service tcp/80 = ok",
        "client > echo tcp/8080 = ok",
        "client > other tcp/8080 = egress 133",
        "client > api tcp/8080 = ok",
        "client > outside2 tcp/8080 = egress 133",
    ])?;
    // Another backend behind the service; the API server has moved.
    village.becomes("backends: [test/echo]", "backends: [other/elsewhere]")?;
    village.becomes(
        "203.0.113.66, \"2001:db8:113::66\"",
        "203.0.113.17, \"2001:db8:113::17\"",
    )?;
    hold(&[
        "client > other tcp/8080 = ok",
        "client > echo tcp/8080 = egress 133",
        "client > outside2 tcp/8080 = ok",
        "client > api tcp/8080 = egress 133",
    ])?;
    // A mistake in it keeps the last good one.
    std::fs::write(
        village.node.files().join("world.yaml"),
        "nodes: [{name: n1}]",
    )?;
    support::until(TOLD, "the mistake in `status`", || {
        let status = village.node.client().text(&["status"]).ok()?;
        status.contains("world.yaml").then_some(())
    })?;
    hold(&[
        "client > other tcp/8080 = ok",
        "client > echo tcp/8080 = egress 133",
    ])
}

fn try_line(village: &Village<'_>, line: &Line, v4: bool) -> Result<()> {
    let actor = |name| {
        let found = village.actor(name, v4)?;
        found.with_context(|| format!("{name} has no address of the family"))
    };
    let from = actor(line.from)?;
    let began = humantime(SystemTime::now())?;
    let address = match (line.from, v4) {
        _ if line.to.contains('.') => match look_up(village, line, v4)? {
            Some(address) => address,
            None => return told_of_refusal(village, line, &began),
        },
        ("nodeport", true) => ip(support::world::address::HOST4)?,
        _ => actor(line.to)?.address,
    };
    let Some(what) = line.what else {
        ensure!(line.expected == Fate::Arrives, "it was answered");
        return Ok(());
    };
    let patience = match line.expected {
        Fate::Arrives => patience(PATIENT),
        Fate::Dropped { .. } | Fate::Refused => SHORT,
    };
    let arrived = ask(from.netns, from.source, address, what, patience)?;
    let Fate::Dropped { ingress, reason } = line.expected else {
        ensure!(
            arrived,
            "no answer; dropped: {:?}",
            drops(village, &began, from.source)?
        );
        return Ok(());
    };
    ensure!(!arrived, "an answer came");
    let (judge, direction) = if ingress {
        (line.to, "INGRESS")
    } else {
        (line.from, "EGRESS")
    };
    ensure!(village.pod(judge).is_some(), "only workloads judge");
    let workload = if judge == "other" { "elsewhere" } else { judge };
    let side = if ingress {
        "/destination/pod_name"
    } else {
        "/source/pod_name"
    };
    support::until(TOLD, "the record of the drop", || {
        let records = village.node.client().json_lines(&[
            "observe",
            "--last",
            "1000",
            "--since",
            &began,
            "--verdict",
            "DROPPED",
            "--direction",
            direction,
        ]);
        let records = match records {
            Ok(records) => records,
            Err(error) => return Some(Err(error)),
        };
        let of_family = |record: &Value| {
            let source = record.pointer("/IP/source").and_then(Value::as_str);
            let told_by = record.pointer(side).and_then(Value::as_str);
            told_by == Some(workload)
                && source
                    .and_then(|text| text.parse::<IpAddr>().ok())
                    .is_some_and(|source| source.is_ipv4() == v4)
        };
        let reasons: Vec<_> = records
            .iter()
            .filter(|record| of_family(record))
            .filter_map(|record| record.get("drop_reason").and_then(Value::as_u64))
            .collect();
        let told = !reasons.is_empty();
        told.then(|| {
            ensure!(
                reasons.iter().all(|told| *told == reason),
                "dropped with {reasons:?}"
            );
            Ok(())
        })
    })
    .with_context(|| {
        let all = village
            .node
            .client()
            .json_lines(&["observe", "--last", "5"]);
        format!("{} since {began}: {all:?}", line.text)
    })?
}

/// The address of a name, as a workload learns it from the cluster's resolver; none when it may not
/// ask for the name.
fn look_up(village: &Village<'_>, line: &Line, v4: bool) -> Result<Option<IpAddr>> {
    let pod = village.pod(line.from).context("only workloads look up")?;
    let family = if v4 { "A" } else { "AAAA" };
    let answer = pod.ok(&format!(
        "dig +time=4 +tries=2 +noall +comments +answer @{} {} {family}",
        support::world::address::RESOLVER,
        line.to
    ))?;
    if line.expected == Fate::Refused {
        ensure!(answer.contains("status: REFUSED"), "{answer}");
        return Ok(None);
    }
    let address = answer.lines().rev().find_map(|line| {
        let last = line.split_whitespace().next_back()?;
        last.parse().ok()
    });
    address.with_context(|| answer).map(Some)
}

fn told_of_refusal(village: &Village<'_>, line: &Line, began: &str) -> Result<()> {
    support::until(TOLD, "the record of the refusal", || {
        let records = village.node.client().json_lines(&[
            "observe",
            "--since",
            began,
            "--verdict",
            "DROPPED",
            "--name",
            line.to,
        ]);
        let records = records.ok()?;
        records
            .iter()
            .any(|record| {
                record.pointer("/source/pod_name").and_then(Value::as_str) == Some(line.from)
                    && record.get("l7").is_some()
            })
            .then_some(())
    })
}

/// What was dropped of somebody since.
fn drops(village: &Village<'_>, since: &str, source: Option<IpAddr>) -> Result<Vec<String>> {
    let records = village.node.client().json_lines(&[
        "observe",
        "--last",
        "1000",
        "--since",
        since,
        "--verdict",
        "DROPPED",
    ])?;
    let source = source.map(|source| source.to_string()).unwrap_or_default();
    Ok(records
        .iter()
        .map(Value::to_string)
        .filter(|text| text.contains(&source))
        .collect())
}

/// A time as `observe --since` reads it.
fn humantime(time: SystemTime) -> Result<String> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH)?;
    let output = support::process::output_of(std::process::Command::new("date").args([
        "-u",
        "-d",
        &format!("@{}.{:09}", since.as_secs(), since.subsec_nanos()),
        "+%Y-%m-%dT%H:%M:%S.%NZ",
    ]))?;
    Ok(output.ok("date")?.trim().to_owned())
}
