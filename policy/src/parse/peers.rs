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
    document::object_name,
    fields::{Cursor, Fields, Reader},
    labels,
    tree::Value,
};
use crate::{
    fqdn::NameSelector,
    model::{Entity, Located, Peers, Prefix, PrefixRule, ServiceSelector},
    selector::LabelSelector,
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
        .filter(|name| {
            !matches!(
                **name,
                "toPorts" | "icmps" | "authentication" | "fromRequires" | "toRequires"
            )
        })
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
            Some(PrefixRule::Cidr(Prefix {
                prefix,
                except: Vec::new(),
            }))
        })?),
        "fromCIDRSet" | "toCIDRSet" => Peers::Prefixes(all(reader, &items, prefix_set)?),
        "fromEntities" | "toEntities" => Peers::Entities(all(reader, &items, entity)?),
        "fromNodes" | "toNodes" => Peers::Nodes(all(reader, &items, |reader, item| {
            Some(labels::selector(reader, item)?.scoped_to_nodes("remote-node"))
        })?),
        "fromGroups" | "toGroups" => {
            let problem = Problem::Refused {
                what: (*name).into(),
                why: "asks a cloud provider for addresses, which is not done here; write the prefixes, or a CiliumCIDRGroup that something keeps up to date",
            };
            reader.problem(at, problem);
            return None;
        }
        "toServices" => Peers::Services(all(reader, &items, service)?),
        _ => Peers::Names(all(reader, &items, fqdn)?),
    };
    // `toEndpoints: []` beside `toCIDR: [..]` selects nobody.
    if written.len() > 1 {
        return Some(Some(Peers::Nobody));
    }
    Some(Some(peers))
}

pub(super) fn all<T>(
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

pub(super) fn address_range(reader: &mut Reader, at: &Cursor<'_>) -> Option<IpNet> {
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

fn prefix_set(reader: &mut Reader, at: &Cursor<'_>) -> Option<PrefixRule> {
    const FIELDS: &[&str] = &["cidr", "cidrGroupRef", "cidrGroupSelector", "except"];
    let errors = reader.errors.len();
    let fields = reader.fields(at, FIELDS, &[])?;
    let written = (
        fields.get("cidr"),
        fields.get("cidrGroupRef"),
        fields.get("cidrGroupSelector"),
    );
    let except = |reader: &mut Reader, inside| {
        fields
            .get("except")
            .map_or_else(|| Some(Vec::new()), |list| except(reader, list, inside))
    };
    let rule = match written {
        (Some(cidr), None, None) => {
            let prefix = address_range(reader, cidr)?;
            let except = except(reader, Some(prefix))?;
            PrefixRule::Cidr(Prefix { prefix, except })
        }
        (None, Some(name), None) => PrefixRule::Group {
            name: object_name(reader, name)?.into(),
            except: except(reader, None)?,
        },
        (None, None, Some(selector)) => PrefixRule::Groups {
            selector: labels::selector(reader, selector)?,
            except: except(reader, None)?,
        },
        _ => {
            let problem = Problem::ExactlyOne("`cidr`, `cidrGroupRef` and `cidrGroupSelector`");
            reader.problem(at, problem);
            return None;
        }
    };
    (reader.errors.len() == errors).then_some(rule)
}

/// Exceptions, each inside of `inside` where that is known.
pub(super) fn except(
    reader: &mut Reader,
    at: &Cursor<'_>,
    inside: Option<IpNet>,
) -> Option<Vec<IpNet>> {
    let mut except = Vec::new();
    for item in reader.list(at)? {
        let out = address_range(reader, &item)?;
        if let Some(prefix) = inside
            && !prefix.contains(&out)
        {
            let problem = Problem::ExceptOutside {
                except: out.to_string(),
                prefix: prefix.to_string(),
            };
            reader.problem(&item, problem);
            return None;
        }
        except.push(out);
    }
    except.sort_unstable();
    except.dedup();
    Some(except)
}

fn service(reader: &mut Reader, at: &Cursor<'_>) -> Option<ServiceSelector> {
    let fields = reader.fields(at, &["k8sService", "k8sServiceSelector"], &[])?;
    let namespace = |reader: &mut Reader, at: Option<&Cursor<'_>>| {
        reader.text(at).filter(|namespace| !namespace.is_empty())
    };
    match (fields.get("k8sService"), fields.get("k8sServiceSelector")) {
        (Some(by_name), None) => {
            let fields = reader.fields(by_name, &["serviceName", "namespace"], &[])?;
            let Some(name) = fields.get("serviceName") else {
                reader.problem(by_name, Problem::Missing("serviceName"));
                return None;
            };
            Some(ServiceSelector {
                namespace: namespace(reader, fields.get("namespace")),
                name: Some(object_name(reader, name)?.into()),
                labels: LabelSelector::default(),
            })
        }
        (None, Some(by_labels)) => {
            let fields = reader.fields(by_labels, &["selector", "namespace"], &[])?;
            let Some(selector) = fields.get("selector") else {
                reader.problem(by_labels, Problem::Missing("selector"));
                return None;
            };
            Some(ServiceSelector {
                namespace: namespace(reader, fields.get("namespace")),
                name: None,
                labels: labels::selector(reader, selector)?,
            })
        }
        _ => {
            let problem = Problem::ExactlyOne("`k8sService` and `k8sServiceSelector`");
            reader.problem(at, problem);
            None
        }
    }
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
