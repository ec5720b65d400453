//! The L3 members of a rule: whom it is about.
//!
//! In:  the fields of one element of `ingress` or `egress`.
//! Out: [`Peers`], or none when no L3 member is written.
//! Not here: ports (`ports`), whether nobody or everybody is meant without them (`cilium`).
//!
//! A member that is written but empty selects nobody, whatever stands beside it.

use ipnet::IpNet;

use super::{
    Problem,
    cilium::Scope,
    fields::{Cursor, Fields, Reader},
    labels,
    tree::Value,
};
use crate::{
    fqdn::NameSelector,
    model::{Entity, Located, Peers, Prefix},
};

pub(super) fn read(
    reader: &mut Reader,
    rule: &Cursor<'_>,
    fields: &Fields<'_>,
    known: &'static [&'static str],
    scope: &Scope<'_>,
) -> Option<Option<Peers>> {
    let written: Vec<(&'static str, &Cursor<'_>)> = known
        .iter()
        .filter(|name| !matches!(**name, "toPorts" | "icmps"))
        .filter_map(|name| Some((*name, fields.get(name)?)))
        .collect();
    let is_empty =
        |at: &Cursor<'_>| matches!(&at.node.value, Value::List(items) if items.is_empty());
    let mut filled = written.iter().filter(|(_, at)| !is_empty(at));
    let (first, second) = (filled.next(), filled.next());
    if let (Some((a, _)), Some((b, _))) = (first, second) {
        reader.problem(rule, Problem::Combined(a, b));
        return None;
    }
    let Some((name, at)) = first else {
        return Some((!written.is_empty()).then_some(Peers::Nobody));
    };
    let items = reader.list(at)?;
    let peers = match *name {
        "fromEndpoints" | "toEndpoints" => {
            Peers::Endpoints(all(reader, &items, |reader, item| {
                let selector = labels::selector(reader, item)?;
                Some(selector.scoped_to_peer(scope.namespace, scope.cluster, scope.subject_is_init))
            })?)
        }
        "fromCIDR" | "toCIDR" => Peers::Prefixes(all(reader, &items, |reader, item| {
            let prefix = address_range(reader, item)?;
            Some(Prefix {
                prefix,
                except: Vec::new(),
            })
        })?),
        "fromCIDRSet" | "toCIDRSet" => Peers::Prefixes(all(reader, &items, prefix_set)?),
        "fromEntities" | "toEntities" => Peers::Entities(all(reader, &items, entity)?),
        _ => Peers::Names(all(reader, &items, fqdn)?),
    };
    // `toEndpoints: []` beside `toCIDR: [..]` selects nobody.
    if written.len() > 1 {
        return Some(Some(Peers::Nobody));
    }
    Some(Some(peers))
}

fn all<T>(
    reader: &mut Reader,
    items: &[Cursor<'_>],
    mut read: impl FnMut(&mut Reader, &Cursor<'_>) -> Option<T>,
) -> Option<Vec<Located<T>>> {
    let values: Vec<_> = items
        .iter()
        .filter_map(|item| {
            Some(Located {
                value: read(reader, item)?,
                line: item.line(),
            })
        })
        .collect();
    (values.len() == items.len()).then_some(values)
}

fn entity(reader: &mut Reader, at: &Cursor<'_>) -> Option<Entity> {
    let text = reader.string(at)?;
    let found = Entity::ALL.into_iter().find(|e| e.as_str() == text);
    if found.is_none() {
        let names: Vec<_> = Entity::ALL.iter().map(|e| e.as_str()).collect();
        reader.problem(
            at,
            Problem::NotOneOf {
                found: text.into(),
                allowed: names.join(", "),
            },
        );
    }
    found
}

fn address_range(reader: &mut Reader, at: &Cursor<'_>) -> Option<IpNet> {
    let text = reader.string(at)?;
    let Ok(prefix) = text.parse::<IpNet>() else {
        reader.problem(at, Problem::Prefix(text.into()));
        return None;
    };
    if let IpNet::V6(v6) = prefix
        && v6.prefix_len() >= 96
        && v6.network().to_ipv4_mapped().is_some()
    {
        reader.problem(at, Problem::MappedPrefix(text.into()));
        return None;
    }
    Some(prefix.trunc())
}

fn prefix_set(reader: &mut Reader, at: &Cursor<'_>) -> Option<Prefix> {
    let fields = reader.fields(
        at,
        &["cidr", "except"],
        &["cidrGroupRef", "cidrGroupSelector"],
    )?;
    let Some(cidr) = fields.get("cidr") else {
        let Value::Map(members) = &at.node.value else {
            return None;
        };
        // A group would have been the address; it is reported as unsupported already.
        if !members.iter().any(|m| m.key.starts_with("cidrGroup")) {
            reader.problem(at, Problem::Missing("cidr"));
        }
        return None;
    };
    let prefix = address_range(reader, cidr)?;
    let mut except = Vec::new();
    if let Some(list) = fields.get("except") {
        for item in reader.list(list)? {
            let out = address_range(reader, &item)?;
            if !prefix.contains(&out) {
                let problem = Problem::ExceptOutside {
                    except: out.to_string(),
                    prefix: prefix.to_string(),
                };
                reader.problem(&item, problem);
                return None;
            }
            except.push(out);
        }
    }
    except.sort_unstable();
    except.dedup();
    Some(Prefix { prefix, except })
}

fn fqdn(reader: &mut Reader, at: &Cursor<'_>) -> Option<NameSelector> {
    let mut names = name_selectors(reader, at)?;
    if names.len() > 1 {
        reader.problem(at, Problem::NameXorPattern);
        return None;
    }
    let name = names.pop();
    if name.is_none() {
        reader.problem(at, Problem::NameXorPattern);
    }
    name
}

/// `matchName` and `matchPattern` of one entry; in `rules.dns` both may stand there.
pub(super) fn name_selectors(reader: &mut Reader, at: &Cursor<'_>) -> Option<Vec<NameSelector>> {
    let errors = reader.errors.len();
    let fields = reader.fields(at, &["matchName", "matchPattern"], &[])?;
    if reader.errors.len() > errors {
        return None;
    }
    let mut names = Vec::new();
    type Parse = fn(&str) -> Result<NameSelector, crate::fqdn::NameError>;
    let kinds: [(&str, Parse); 2] = [
        ("matchName", NameSelector::name),
        ("matchPattern", NameSelector::pattern),
    ];
    for (field, parse) in kinds {
        let Some(value) = fields.get(field) else {
            continue;
        };
        match parse(reader.string(value)?) {
            Ok(name) => names.push(name),
            Err(error) => {
                reader.problem(value, error);
                return None;
            }
        }
    }
    Some(names)
}
