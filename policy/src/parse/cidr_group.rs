//! `CiliumCIDRGroup`.
//!
//! In:  the object.
//! Out: [`CidrGroup`].
//! Not here: the rules that refer to it (`peers`).

use std::sync::Arc;

use identity::{Label, LabelSet};

use super::{
    Problem, document,
    fields::{Cursor, Reader},
    peers,
};
use crate::model::CidrGroup;

pub(super) fn read(reader: &mut Reader, at: &Cursor<'_>) -> Option<CidrGroup> {
    const FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "spec", "status"];
    let fields = reader.fields(at, FIELDS, &[])?;
    let Some(metadata) = fields.get("metadata") else {
        reader.problem(at, Problem::Missing("metadata"));
        return None;
    };
    let members = reader.mapping(metadata)?;
    let find = |name: &str| members.iter().find(|(key, _)| *key == name).map(|(_, c)| c);
    let Some(name) = find("name") else {
        reader.problem(metadata, Problem::Missing("name"));
        return None;
    };
    let name = document::object_name(reader, name)?;
    let mut labels = Vec::new();
    if let Some(list) = find("labels") {
        for (key, value) in reader.mapping(list)? {
            labels.push(Label::k8s(key, reader.string(&value)?));
        }
    }
    let Some(spec) = fields.get("spec") else {
        reader.problem(at, Problem::NoSpec);
        return None;
    };
    let spec_fields = reader.fields(spec, &["externalCIDRs"], &[])?;
    let Some(list) = spec_fields.get("externalCIDRs") else {
        reader.problem(spec, Problem::Missing("externalCIDRs"));
        return None;
    };
    let items = reader.list(list)?;
    let mut prefixes: Vec<_> = items
        .iter()
        .filter_map(|item| peers::address_range(reader, item))
        .collect();
    if prefixes.len() < items.len() {
        return None;
    }
    prefixes.sort_unstable();
    prefixes.dedup();
    Some(CidrGroup {
        name: name.into(),
        labels: labels.into_iter().collect::<LabelSet>(),
        prefixes,
        file: Arc::clone(&reader.file),
        line: at.line(),
    })
}
