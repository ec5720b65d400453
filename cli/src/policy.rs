//! `namegate policy`: files in, verdicts, differences and advice out.
//!
//! In:  arguments.
//! Out: tables, JSON or YAML on stdout, mistakes and notes on stderr, an exit status.
//! Not here: judging (`agent::offline`).

use std::path::{Path, PathBuf};

use agent::offline::{
    self, Decision, Difference, Mismatch, OfflineError, Options, Outcome,
    scenario::{self, Fallback},
};
use comfy_table::{ContentArrangement, Table, presets};
use policy::parse::{Limits, Note};

use crate::{
    args::{self, Policy},
    output,
};

/// Everything is as it should be.
const FINE: i32 = 0;
/// A flow came out otherwise, or there are warnings nobody wants.
const DIFFERENT: i32 = 1;
/// A file is invalid.
const INVALID: i32 = 2;

/// Carries out the command and returns the status to exit with.
pub(crate) fn run(command: Policy) -> i32 {
    let done = match command {
        Policy::Validate {
            files,
            deny_warnings,
        } => validate(&files, deny_warnings),
        Policy::Verdict(args) => verdict(&args),
        Policy::Get {
            endpoint,
            target,
            output,
        } => crate::list::policy(endpoint.as_deref(), &target, &output).map(|()| 0),
        Policy::Test {
            scenarios,
            world,
            policy,
            datapath_only,
        } => {
            let fallback = Fallback {
                world: world.as_deref(),
                policies: &policy,
                options: Options { datapath_only },
            };
            test(&scenarios, fallback)
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("namegate: {error:#}");
        INVALID
    })
}

fn validate(files: &[PathBuf], deny_warnings: bool) -> anyhow::Result<i32> {
    let checked = offline::validate(files, &Limits::default());
    say(&checked.notes);
    let errors = checked.errors.iter().map(ToString::to_string);
    let advice = checked.advice.iter().map(ToString::to_string);
    let groups = checked
        .groups
        .iter()
        .map(|group| format!("{}: CiliumCIDRGroup/{} is valid", group.file, group.name));
    let valid = checked
        .policies
        .iter()
        .map(|policy| format!("{}: {} is valid", policy.file, policy.reference));
    for line in errors.chain(advice).chain(groups).chain(valid) {
        output::line(&line)?;
    }
    Ok(if !checked.is_valid() {
        INVALID
    } else if deny_warnings && checked.has_warnings() {
        DIFFERENT
    } else {
        FINE
    })
}

fn verdict(args: &args::Verdict) -> anyhow::Result<i32> {
    match judged(args) {
        Ok(judged) => {
            output::print(args.output.format, &judged.outcomes, |outcomes| {
                table(&judged.flows, outcomes)
            })?;
            Ok(FINE)
        }
        Err(errors) => Ok(complain(&errors)),
    }
}

/// Each flow in words, and what came of it.
struct Judged {
    flows: Vec<[String; 3]>,
    outcomes: Vec<Outcome>,
}

fn judged(args: &args::Verdict) -> Result<Judged, Vec<OfflineError>> {
    let one = |error: offline::InputError| vec![OfflineError::from(error)];
    let world = offline::world(&args.world).map_err(one)?;
    let flows = match &args.flows {
        Some(path) => offline::flows(path).map_err(one)?,
        None => offline::flows_of(&world).map_err(one)?,
    };
    let loaded = scenario::load(&args.policy, &world.value)?;
    say(&loaded.notes);
    let options = Options {
        datapath_only: args.datapath_only,
    };
    let outcomes = offline::judge(&world, &loaded, &flows, options).map_err(|e| vec![e])?;
    let words = flows.value.iter().map(|flow| {
        let flow = &flow.value;
        [flow.from.value.clone(), flow.to.value.clone(), flow.what()]
    });
    Ok(Judged {
        flows: words.collect(),
        outcomes,
    })
}

fn table(flows: &[[String; 3]], outcomes: &[Outcome]) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(["From", "To", "Flow", "Verdict", "Egress", "Ingress"]);
    for ([from, to, what], outcome) in flows.iter().zip(outcomes) {
        table.add_row([
            from.clone(),
            to.clone(),
            what.clone(),
            outcome.verdict.to_string(),
            cell(outcome.egress.as_ref()),
            cell(outcome.ingress.as_ref()),
        ]);
    }
    let text = table.to_string();
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// One direction: the verdict and how it came about, then the policies below each other.
fn cell(decision: Option<&Decision>) -> String {
    let Some(decision) = decision else {
        return "-".to_owned();
    };
    let mut text = format!("{} {}", decision.verdict, decision.match_type);
    if let Some(l7) = decision.l7 {
        text.push_str(&format!(" {l7}"));
    }
    if !decision.reason_text.is_empty() {
        text.push_str(&format!("\n{}", decision.reason_text));
    }
    for rule in &decision.rules {
        text.push_str(&format!("\n{rule}"));
    }
    text
}

fn test(scenarios: &[PathBuf], fallback: Fallback<'_>) -> anyhow::Result<i32> {
    let mut status = FINE;
    for path in scenarios {
        status = status.max(match offline::test(path, fallback) {
            Ok(tested) => {
                say(&tested.notes);
                report(path, tested.flows, &tested.mismatches)?
            }
            Err(errors) => complain(&errors),
        });
    }
    Ok(status)
}

fn report(path: &Path, flows: usize, mismatches: &[Mismatch]) -> anyhow::Result<i32> {
    let plural = if flows == 1 { "flow" } else { "flows" };
    if mismatches.is_empty() {
        output::line(&format!("ok      {}: {flows} {plural}", path.display()))?;
        return Ok(FINE);
    }
    let wrong = mismatches.len();
    output::line(&format!(
        "FAILED  {}: {wrong} of {flows} {plural} came out otherwise",
        path.display()
    ))?;
    for mismatch in mismatches {
        output::line(&format!(
            "  {}:{}: flows[{}]: {}",
            mismatch.file, mismatch.line, mismatch.index, mismatch.flow
        ))?;
        for Difference {
            field,
            expected,
            actual,
        } in &mismatch.differences
        {
            output::line(&format!("    - {field}: {expected}"))?;
            output::line(&format!("    + {field}: {actual}"))?;
        }
    }
    Ok(DIFFERENT)
}

fn say(notes: &[Note]) {
    for note in notes {
        eprintln!("namegate: note: {note}");
    }
}

fn complain(errors: &[OfflineError]) -> i32 {
    for error in errors {
        eprintln!("namegate: {error}");
    }
    INVALID
}
