//! `namegate run`: arguments to a specification, the outcome to a report and an exit status.
//!
//! In:  the arguments of `run`.
//! Out: the exit status; the report on stderr and, with `--report`, in a file.
//! Not here: running (`agent::run`).

use std::{io::IsTerminal, time::Duration};

use agent::{
    Given,
    api::Report,
    facts, pod,
    policies::{self, LoadError},
    run::{Attach, RunLimits, RunSpec},
};
use identity::Label;
use policy::{parse::Limits, shorthand};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::{args, explain, report_file::ReportFile};

/// namegate itself failed; as `env`, `timeout` and `docker run` have it.
pub(crate) const FAILED: i32 = 125;
/// The command succeeded, but something was denied (`--fail-on-deny`).
const DENIED: i32 = 77;

/// Runs the command and returns the status to exit with.
pub(crate) fn run(args: args::Run) -> i32 {
    log_to_stderr(args.verbose);
    match try_run(args) {
        Ok(status) => status,
        Err(mistakes) => {
            for mistake in mistakes {
                eprintln!("namegate: {mistake}");
            }
            FAILED
        }
    }
}

fn try_run(args: args::Run) -> Result<i32, Vec<String>> {
    let spec = specification(&args)?;
    warn_about_weakening(&args);
    let file = args
        .report
        .as_deref()
        .map(|path| ReportFile::create(path, &pod::InvokingUser::detect()))
        .transpose()
        .map_err(|mistake| vec![mistake])?;
    let report = agent::run::run(spec).map_err(|error| vec![chain(&error)])?;
    if explain::wanted(&report, std::io::stderr().is_terminal()) {
        eprint!("{}", explain::report(&report));
    }
    if let Some(file) = file {
        file.write(&report).map_err(|mistake| vec![mistake])?;
    }
    Ok(exit_status(&report, args.fail_on_deny))
}

fn specification(args: &args::Run) -> Result<RunSpec, Vec<String>> {
    let mut mistakes = Vec::new();
    let mut given = Given::default();
    if let Some(path) = &args.world {
        match facts::world(path) {
            Ok(world) => given.facts = world,
            Err(error) => mistakes.push(error.to_string()),
        }
    }
    let limits = Limits {
        default_namespace: args.namespace.clone(),
        cluster: given.facts.value.config.cluster.clone(),
        ..Limits::default()
    };
    if args.policy.is_empty() && args.allow.is_empty() {
        mistakes.push(
            "nothing is allowed and nothing restricted: give --policy FILE or --allow NAME"
                .to_owned(),
        );
    }
    if !args.policy.is_empty() {
        match policies::load(&args.policy, &limits) {
            Ok(loaded) => {
                for note in &loaded.notes {
                    tracing::info!("{note}");
                }
                given.policies = loaded.policies;
                given.groups = loaded.groups;
            }
            Err(errors) => mistakes.extend(errors.iter().map(LoadError::to_string)),
        }
    }
    let mut allows = Vec::new();
    for text in &args.allow {
        match shorthand::allow(text) {
            Ok(allow) => allows.push(allow),
            Err(error) => mistakes.push(format!("--allow: {error}")),
        }
    }
    if !allows.is_empty() {
        given
            .policies
            .push(shorthand::policy(&allows, &args.namespace));
    }
    let mut labels = Vec::new();
    for text in &args.label {
        match text.parse::<Label>() {
            Ok(label) => labels.push(label),
            Err(error) => mistakes.push(format!("--label: {error}")),
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    Ok(RunSpec {
        command: args.command.clone(),
        given,
        labels,
        namespace: args.namespace.clone(),
        resolvers: args.dns.clone(),
        audit: args.audit,
        socket: args.socket.clone(),
        expose: args.expose.clone(),
        allow_sudo: args.allow_sudo,
        ipv6: match args.ipv6 {
            args::Ipv6::Auto => pod::Ipv6::Auto,
            args::Ipv6::Off => pod::Ipv6::Off,
        },
        attach: match args.attach {
            args::AttachBy::Auto => Attach::Auto,
            args::AttachBy::Tcx => Attach::Tcx,
            args::AttachBy::Clsact => Attach::Clsact,
        },
        limits: RunLimits {
            min_ttl: Duration::from_secs(args.min_ttl),
            ttl_grace: Duration::from_secs(args.ttl_grace),
            addresses: args.max_addresses,
            names: args.max_names,
        },
        descriptors: None,
    })
}

fn warn_about_weakening(args: &args::Run) {
    for path in &args.expose {
        eprintln!(
            "namegate: --expose {}: whoever listens there may act for the command; \
             the boundary is weaker",
            path.display()
        );
    }
    if args.allow_sudo {
        eprintln!(
            "namegate: --allow-sudo: the command may become root inside the pod, and no system \
             call is filtered; the boundary is weaker"
        );
    }
}

fn exit_status(report: &Report, fail_on_deny: bool) -> i32 {
    let denied = report.anything_denied() && !report.audit;
    if report.exit_status == 0 && fail_on_deny && denied {
        DENIED
    } else {
        report.exit_status
    }
}

/// An error and everything behind it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Warnings always, what is being done with `--verbose`; `NAMEGATE_LOG` overrides both.
fn log_to_stderr(verbose: bool) {
    let default = if verbose {
        LevelFilter::INFO
    } else {
        LevelFilter::WARN
    };
    let filter = EnvFilter::builder()
        .with_default_directive(default.into())
        .with_env_var("NAMEGATE_LOG")
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .init();
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn arguments(line: &str) -> args::Run {
        match Cli::parse_from(line.split(' ')).command {
            Command::Run(args) => *args,
            _ => unreachable!("not `run`"),
        }
    }

    #[test]
    fn nothing_to_enforce_is_a_mistake() {
        let mistakes = specification(&arguments("namegate run -- true")).unwrap_err();
        assert!(mistakes[0].contains("--allow"), "{mistakes:?}");
    }

    #[test]
    fn every_mistake_of_the_command_line_is_reported() {
        let line = "namegate run --allow 192.0.2.1 --allow a.test:x --label =x -- true";
        let mistakes = specification(&arguments(line)).unwrap_err();
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
    }

    #[test]
    fn shorthand_becomes_a_policy_in_the_namespace_of_the_command() {
        let spec = specification(&arguments(
            "namegate run --allow a.test --namespace ci -- true",
        ))
        .unwrap();
        assert_eq!(
            spec.given.policies[0].reference.to_string(),
            "CiliumNetworkPolicy/ci/command-line"
        );
    }
}
