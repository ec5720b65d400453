//! Scenarios: flows with what should come out of them.
//!
//! In:  a file with a world, policies and flows that have `expect`, or a bare list of such flows.
//! Out: [`Tested`]: what came out otherwise.
//! Not here: judging (`judge`).

use std::{
    fmt,
    path::{Path, PathBuf},
};

use policy::parse::{Limits, Note};
use serde::{
    Deserialize, Deserializer,
    de::{self, value},
};
use serde_saphyr::Spanned;

use super::{
    Cause, Difference, InputError, OfflineError, Options, Outcome, Sourced, World, file,
    flow::{Flow, Flows},
    judge,
};
use crate::{
    facts,
    policies::{self, Loaded},
};

/// A scenario.
#[derive(Clone, Debug, Default)]
pub struct Scenario(Parts);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    /// The world: a file, or written here.
    #[serde(default)]
    world: Option<Given<World>>,
    /// Files and directories.
    #[serde(default, alias = "policy")]
    policies: Option<Paths>,
    /// The flows: a file, or written here; those of the world when absent.
    #[serde(default)]
    flows: Option<Given<Flows>>,
}

/// Something in a file of its own, or in place.
#[derive(Clone, Debug)]
pub enum Given<T> {
    /// In this file, relative to the one that names it.
    Path(PathBuf),
    /// In place.
    Here(Box<T>),
}

/// What a scenario is run with where it leaves something out.
#[derive(Clone, Copy, Debug)]
pub struct Fallback<'a> {
    /// The world.
    pub world: Option<&'a Path>,
    /// The policies.
    pub policies: &'a [PathBuf],
    /// How to judge.
    pub options: Options,
}

/// What came of a scenario.
#[derive(Debug)]
pub struct Tested {
    /// How many flows were judged.
    pub flows: usize,
    /// Those that came out otherwise.
    pub mismatches: Vec<Mismatch>,
    /// Documents among the policies that are none.
    pub notes: Vec<Note>,
}

/// A flow that came out otherwise.
#[derive(Debug)]
pub struct Mismatch {
    /// Its file.
    pub file: std::sync::Arc<str>,
    /// The line it starts on.
    pub line: u64,
    /// Which of the flows, from 0.
    pub index: usize,
    /// The flow in one line.
    pub flow: String,
    /// What is different.
    pub differences: Vec<Difference>,
}

/// Runs one scenario.
///
/// # Errors
/// Every mistake in its policies, or the first one in its other files.
pub fn test(path: &Path, fallback: Fallback<'_>) -> Result<Tested, Vec<OfflineError>> {
    let scenario = file::scenario(path).map_err(one)?;
    let base = path.parent().unwrap_or(Path::new(""));
    let world = world(&scenario, base, fallback).map_err(one)?;
    let flows = flows(&scenario, base, &world).map_err(one)?;
    for (at, flow) in flows.value.iter().enumerate() {
        if flow
            .value
            .expect
            .as_ref()
            .is_none_or(super::Expectation::is_empty)
        {
            let field = format!("flows[{at}].expect");
            return Err(one(flows.wrong(flow, field, Cause::ExpectMissing)));
        }
    }
    let loaded = policies(&scenario, base, &world, fallback)?;
    let outcomes = judge(&world, &loaded, &flows, fallback.options).map_err(|e| vec![e])?;
    Ok(Tested {
        flows: outcomes.len(),
        mismatches: mismatches(&flows, &outcomes),
        notes: loaded.notes,
    })
}

fn one(error: InputError) -> Vec<OfflineError> {
    vec![error.into()]
}

fn world(
    scenario: &Sourced<Scenario>,
    base: &Path,
    fallback: Fallback<'_>,
) -> Result<Sourced<World>, InputError> {
    match (&scenario.value.0.world, fallback.world) {
        (Some(Given::Path(path)), _) => facts::world(&base.join(path)),
        (Some(Given::Here(world)), _) => Ok(scenario.with((**world).clone())),
        (None, Some(path)) => facts::world(path),
        (None, None) => Err(scenario.wrong_file(Cause::Absent {
            field: "world",
            option: "--world",
        })),
    }
}

fn flows(
    scenario: &Sourced<Scenario>,
    base: &Path,
    world: &Sourced<World>,
) -> Result<Sourced<Vec<Spanned<Flow>>>, InputError> {
    let flows = match &scenario.value.0.flows {
        Some(Given::Path(path)) => file::flows(&base.join(path))?,
        Some(Given::Here(flows)) => scenario.with(flows.0.clone()),
        None => world.with(world.value.flows.clone()),
    };
    if flows.value.is_empty() {
        return Err(scenario.wrong_file(Cause::NoFlows));
    }
    Ok(flows)
}

fn policies(
    scenario: &Sourced<Scenario>,
    base: &Path,
    world: &Sourced<World>,
    fallback: Fallback<'_>,
) -> Result<Loaded, Vec<OfflineError>> {
    let paths: Vec<_> = match &scenario.value.0.policies {
        Some(paths) => paths.0.iter().map(|path| base.join(path)).collect(),
        None if fallback.policies.is_empty() => {
            return Err(one(scenario.wrong_file(Cause::Absent {
                field: "policies",
                option: "--policy",
            })));
        }
        None => fallback.policies.to_vec(),
    };
    load(&paths, &world.value)
}

/// The policies of a world.
///
/// # Errors
/// Every mistake in every file.
pub fn load(paths: &[PathBuf], world: &World) -> Result<Loaded, Vec<OfflineError>> {
    let limits = Limits {
        cluster: world.config.cluster.clone(),
        ..Limits::default()
    };
    policies::load(paths, &limits)
        .map_err(|errors| errors.into_iter().map(OfflineError::from).collect())
}

fn mismatches(flows: &Sourced<Vec<Spanned<Flow>>>, outcomes: &[Outcome]) -> Vec<Mismatch> {
    let pairs = flows.value.iter().zip(outcomes).enumerate();
    pairs
        .filter_map(|(index, (flow, outcome))| {
            let differences = flow.value.expect.as_ref()?.differences(outcome);
            (!differences.is_empty()).then(|| Mismatch {
                file: std::sync::Arc::clone(&flows.file),
                line: flow.referenced.line(),
                index,
                flow: flow.value.to_string(),
                differences,
            })
        })
        .collect()
}

impl<'de> Deserialize<'de> for Scenario {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Scenario;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`world`, `policies` and `flows`, or a list of flows")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, seq: A) -> Result<Scenario, A::Error> {
                let flows = Vec::deserialize(value::SeqAccessDeserializer::new(seq))?;
                Ok(Scenario(Parts {
                    flows: Some(Given::Here(Box::new(Flows(flows)))),
                    ..Parts::default()
                }))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Scenario, A::Error> {
                Parts::deserialize(value::MapAccessDeserializer::new(map)).map(Scenario)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = Given<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the path of a file, or its content")
            }

            fn visit_str<E>(self, text: &str) -> Result<Given<T>, E> {
                Ok(Given::Path(text.into()))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, seq: A) -> Result<Given<T>, A::Error> {
                let value = T::deserialize(value::SeqAccessDeserializer::new(seq))?;
                Ok(Given::Here(Box::new(value)))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Given<T>, A::Error> {
                let value = T::deserialize(value::MapAccessDeserializer::new(map))?;
                Ok(Given::Here(Box::new(value)))
            }
        }
        deserializer.deserialize_any(Visitor(std::marker::PhantomData))
    }
}

/// One path, or several.
#[derive(Clone, Debug)]
struct Paths(Vec<PathBuf>);

impl<'de> Deserialize<'de> for Paths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Given::<Vec<PathBuf>>::deserialize(deserializer)? {
            Given::Path(path) => Ok(Self(vec![path])),
            Given::Here(paths) => Ok(Self(*paths)),
        }
    }
}
