//! Compiling policies: everything from scratch, and one change at a time.
//!
//! In:  10,000 rules, each about 1 to 5 % of 1,000 identities, all for one endpoint.
//! Out: milliseconds of a processor for each kind of change; what the compiled state takes in
//!      memory.
//! Not here: reading files, writing maps.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use identity::{IdentityId, Label, LabelSet};
use nix::time::{ClockId, clock_gettime};
use policy::{
    compile::{
        Change, Compiler, EnforcementMode, Identities, SelectorTable, Settings, Surroundings, World,
    },
    model::Policy,
    parse,
};

use crate::{
    options::Options,
    rounds::take_turns,
    table::{Bound, Row, Table},
};

const RULES: u32 = 10_000;
const IDENTITIES: u32 = 1_000;
const CLUSTER: &str = "default";
const SCRATCH: &str = "10,000 rules from scratch";
const RULE: &str = "one rule changed";
const SLOWEST: &str = "one rule changed, the slowest of 30";
const COME: &str = "one identity more";
const GONE: &str = "one identity less";
/// How many rules change one after the other in a round: ten of each kind.
const CHANGES: u32 = 30;

pub(super) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    let before = resident()?;
    let mut bench = Bench::new()?;
    let input = resident()? - before;
    bench.compile_anew()?;
    let compiled = resident()? - before - input;
    let entries = bench.compiler.len();
    let [rows] = take_turns(options, &[SCRATCH, RULE, SLOWEST, COME, GONE], |subject| {
        Ok([match subject {
            SCRATCH => bench.compile_anew()?,
            RULE => bench.change_rules()?.iter().sum::<f64>() / f64::from(CHANGES),
            SLOWEST => bench.change_rules()?.into_iter().fold(0.0, f64::max),
            COME => bench.identity(true)?,
            _ => bench.identity(false)?,
        }])
    })?;
    let memory = |subject: &str, bytes: f64| Row {
        samples: vec![bytes / 1e6],
        ..Row::new(subject)
    };
    Ok(vec![
        Table::new(
            format!("compiling for one endpoint, {entries} entries"),
            "ms of a processor",
            rows,
        )
        .target(SCRATCH, Bound::AtMost(1000.0))
        .target(RULE, Bound::AtMost(10.0))
        .target(SLOWEST, Bound::AtMost(10.0)),
        Table::new(
            "resident memory",
            "MB",
            vec![memory("the rules", input), memory("the compiler", compiled)],
        ),
    ])
}

struct Bench {
    policies: Vec<Arc<Policy>>,
    identities: Identities,
    around: Surroundings,
    selectors: SelectorTable,
    compiler: Compiler,
    /// How many changes there were: every one is another.
    turn: u32,
}

impl Bench {
    fn new() -> anyhow::Result<Self> {
        let policies = (0..RULES)
            .map(|nth| policy(nth, 0))
            .collect::<Result<_, _>>()?;
        let known = (0..IDENTITIES).map(|nth| (id(nth), labels(nth)));
        Ok(Self {
            policies,
            identities: Identities::new(CLUSTER, known, []),
            around: Surroundings::default(),
            selectors: SelectorTable::default(),
            compiler: Compiler::new(settings()),
            turn: 0,
        })
    }

    /// Takes changes in and says how many milliseconds of a processor that took: nothing here
    /// waits, and who else is busy on the machine does not count.
    fn apply(&mut self, changes: &[Change]) -> anyhow::Result<f64> {
        let world = World {
            identities: &self.identities,
            around: &self.around,
        };
        let began = spent()?;
        self.compiler.apply(&world, &mut self.selectors, changes)?;
        Ok((spent()? - began).as_secs_f64() * 1e3)
    }

    fn compile_anew(&mut self) -> anyhow::Result<f64> {
        self.compiler = Compiler::new(settings());
        let all: Vec<_> = (0..)
            .zip(&self.policies)
            .map(|(number, policy)| Change::Policy(number, Some(Arc::clone(policy))))
            .collect();
        self.apply(&all)
    }

    /// Some rules change, one after the other.
    fn change_rules(&mut self) -> anyhow::Result<Vec<f64>> {
        (0..CHANGES)
            .map(|_| {
                self.turn += 1;
                let number = self.turn * 37 % RULES;
                let changed = policy(number, self.turn)?;
                self.apply(&[Change::Policy(number, Some(changed))])
            })
            .collect()
    }

    /// An identity comes, or goes. Subjects take turns in any order: it may have to be made so
    /// first that this is a change.
    fn identity(&mut self, comes: bool) -> anyhow::Result<f64> {
        self.set_identity(!comes)?;
        self.set_identity(comes)
    }

    fn set_identity(&mut self, there: bool) -> anyhow::Result<f64> {
        let labels = labels(IDENTITIES);
        if there {
            self.identities.insert(id(IDENTITIES), &labels);
        } else {
            self.identities.remove(id(IDENTITIES));
        }
        self.apply(&[Change::Labels(labels)])
    }
}

fn settings() -> Settings {
    Settings::new(&labels(0), CLUSTER, EnforcementMode::Default)
}

fn id(nth: u32) -> IdentityId {
    IdentityId::from_raw(256 + nth)
}

/// Labels by which one in a hundred, in forty and in twenty are selected.
fn labels(nth: u32) -> LabelSet {
    let label = |key: &str, value: u32| Label::k8s(key, &value.to_string());
    [
        Label::k8s("io.kubernetes.pod.namespace", "bench"),
        label("app", nth),
        label("one", nth % 100),
        label("two", nth % 40),
        label("five", nth % 20),
    ]
    .into_iter()
    .collect()
}

/// One policy of one rule; `turn` makes it another one.
fn policy(nth: u32, turn: u32) -> anyhow::Result<Arc<Policy>> {
    let (key, value) = match nth % 3 {
        0 => ("one", nth / 3 % 100),
        1 => ("two", nth / 3 % 40),
        _ => ("five", nth / 3 % 20),
    };
    let port = 1 + (nth + turn * 7919) % 60_000;
    let text = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p{nth}, namespace: bench}}\n\
         spec:\n  endpointSelector: {{}}\n  egress:\n  - toEndpoints: [{{matchLabels: {{{key}: '{value}'}}}}]\n    \
         toPorts: [{{ports: [{{port: '{port}', protocol: TCP}}]}}]\n"
    );
    let parsed = parse::documents("bench.yaml", &text);
    let parsed = parsed.map_err(|errors| anyhow!("{errors:?}"))?;
    let policy = parsed.policies.into_iter().next().context("no policy")?;
    Ok(Arc::new(policy))
}

/// How long this thread has run on a processor.
fn spent() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// What the process takes at this moment, in bytes.
fn resident() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line
        .and_then(|line| line.trim().strip_suffix("kB"))
        .context("no VmRSS in /proc/self/status")?;
    Ok(kilobytes.trim().parse::<f64>()? * 1024.0)
}
