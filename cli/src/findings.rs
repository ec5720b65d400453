//! What checking and testing policies found, for people and programs.
//!
//! In:  what `agent::offline` says about policy files and scenarios.
//! Out: values that serialise, and the lines people read.
//! Not here: finding anything.

use std::path::Path;

use agent::{
    offline::{Checked, Mismatch},
    policies::LoadError,
};
use policy::lint::Severity;
use serde::Serialize;

/// What `policy validate` found.
#[derive(Debug, Serialize)]
pub(crate) struct Validated {
    /// No mistake; there may be warnings.
    pub(crate) valid: bool,
    findings: Vec<Finding>,
    policies: Vec<Valid>,
    groups: Vec<Valid>,
}

/// One mistake, or one piece of advice.
#[derive(Debug, Serialize)]
struct Finding {
    /// `error`, `warning`, `info`, or `note`: a document that is no policy.
    severity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
    /// All of it in one line.
    #[serde(skip)]
    text: Option<String>,
}

/// Something that is fine.
#[derive(Debug, Serialize)]
struct Valid {
    file: String,
    name: String,
}

pub(crate) fn validated(checked: &Checked) -> Validated {
    let notes = checked.notes.iter().map(|note| Finding {
        severity: "note",
        file: Some(note.file.to_string()),
        line: Some(note.line),
        column: None,
        field: None,
        message: format!("{} is not a policy and was passed over", note.what),
        remedy: None,
        text: None,
    });
    let advice = checked.advice.iter().map(|warning| Finding {
        severity: match warning.severity {
            Severity::Warning => "warning",
            Severity::Info => "info",
        },
        file: Some(warning.file.to_string()).filter(|file| !file.is_empty()),
        line: Some(warning.line).filter(|line| *line != 0),
        column: None,
        field: None,
        message: warning.advice.to_string(),
        remedy: None,
        text: Some(warning.to_string()),
    });
    let named = |file: &str, name: String| Valid {
        file: file.to_owned(),
        name,
    };
    Validated {
        valid: checked.is_valid(),
        findings: checked
            .errors
            .iter()
            .map(mistake)
            .chain(advice)
            .chain(notes)
            .collect(),
        policies: checked
            .policies
            .iter()
            .map(|policy| named(&policy.file, policy.reference.to_string()))
            .collect(),
        groups: checked
            .groups
            .iter()
            .map(|group| named(&group.file, format!("CiliumCIDRGroup/{}", group.name)))
            .collect(),
    }
}

fn mistake(error: &LoadError) -> Finding {
    let general = Finding {
        severity: "error",
        file: None,
        line: None,
        column: None,
        field: None,
        message: error.to_string(),
        remedy: None,
        text: Some(error.to_string()),
    };
    match error {
        LoadError::Policy(error) => Finding {
            file: Some(error.file.to_string()),
            line: Some(error.line),
            column: Some(error.column),
            field: Some(error.field.clone()).filter(|field| !field.is_empty()),
            message: error.problem.to_string(),
            remedy: error.problem.remedy().map(|remedy| remedy.to_string()),
            ..general
        },
        LoadError::Read { path, .. } => Finding {
            file: Some(path.display().to_string()),
            ..general
        },
        _ => general,
    }
}

impl Validated {
    /// For people.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let found = self.findings.iter().filter_map(|found| found.text.clone());
        let fine = self
            .groups
            .iter()
            .chain(&self.policies)
            .map(|valid| format!("{}: {} is valid", valid.file, valid.name));
        found.chain(fine)
    }
}

/// What became of one scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Tested {
    scenario: String,
    pub(crate) ok: bool,
    flows: usize,
    mismatches: Vec<Wrong>,
}

/// A flow that came out otherwise.
#[derive(Debug, Serialize)]
struct Wrong {
    file: String,
    line: u64,
    index: usize,
    flow: String,
    differences: Vec<Part>,
}

#[derive(Debug, Serialize)]
struct Part {
    field: String,
    expected: String,
    actual: String,
}

pub(crate) fn tested(path: &Path, flows: usize, mismatches: &[Mismatch]) -> Tested {
    let mismatches: Vec<_> = mismatches
        .iter()
        .map(|mismatch| Wrong {
            file: mismatch.file.to_string(),
            line: mismatch.line,
            index: mismatch.index,
            flow: mismatch.flow.clone(),
            differences: mismatch
                .differences
                .iter()
                .map(|part| Part {
                    field: part.field.clone(),
                    expected: part.expected.clone(),
                    actual: part.actual.clone(),
                })
                .collect(),
        })
        .collect();
    Tested {
        scenario: path.display().to_string(),
        ok: mismatches.is_empty(),
        flows,
        mismatches,
    }
}

impl Tested {
    /// For people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let (path, flows) = (&self.scenario, self.flows);
        let plural = if flows == 1 { "flow" } else { "flows" };
        if self.ok {
            return vec![format!("ok      {path}: {flows} {plural}")];
        }
        let wrong = self.mismatches.len();
        let mut lines = vec![format!(
            "FAILED  {path}: {wrong} of {flows} {plural} came out otherwise"
        )];
        for wrong in &self.mismatches {
            lines.push(format!(
                "  {}:{}: flows[{}]: {}",
                wrong.file, wrong.line, wrong.index, wrong.flow
            ));
            for part in &wrong.differences {
                lines.push(format!("    - {}: {}", part.field, part.expected));
                lines.push(format!("    + {}: {}", part.field, part.actual));
            }
        }
        lines
    }
}
