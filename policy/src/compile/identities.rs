//! The identities a node knows, indexed for label selectors and prefixes.
//!
//! In:  label sets and prefixes with their numbers.
//! Out: the numbers a selector, an entity or a prefix stands for.
//! Not here: handing out numbers (`identity`).
//!
//! One bit per identity and label: a selector costs a few machine words per requirement, however
//! many identities there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use identity::{IdentityId, Label, LabelSet, reserved, source};
use ipnet::IpNet;

use super::Change;
use crate::{
    compiled::Peer,
    model::{Entity, Prefix},
    selector::{CLUSTER, LabelKey, LabelSelector, Operator, Requirement, complete},
};

/// Every identity peers can have, FQDN identities excepted.
#[derive(Debug, Clone)]
pub struct Identities {
    cluster: Box<str>,
    /// By the number of their bit.
    ids: Vec<IdentityId>,
    labels: BTreeMap<IdentityId, (usize, LabelSet)>,
    /// The bits in use.
    live: Bits,
    free: Vec<usize>,
    by_key: HashMap<Box<str>, Values>,
    /// Sorted, so that what is inside of a prefix is one range.
    prefixes: Vec<(IpNet, IdentityId)>,
}

/// (source, value) → the identities that have it.
type Values = BTreeMap<(Box<str>, Box<str>), Bits>;

impl Identities {
    /// The identities of workloads and entities by label, and of prefixes. Reserved identities
    /// have their own label unless `labels` says more about them.
    pub fn new(
        cluster: &str,
        labels: impl IntoIterator<Item = (IdentityId, LabelSet)>,
        prefixes: impl IntoIterator<Item = (IdentityId, IpNet)>,
    ) -> Self {
        let mut all = Self {
            cluster: cluster.into(),
            ids: Vec::new(),
            labels: BTreeMap::new(),
            live: Bits::default(),
            free: Vec::new(),
            by_key: HashMap::new(),
            prefixes: prefixes
                .into_iter()
                .map(|(id, prefix)| (prefix.trunc(), id))
                .collect(),
        };
        all.prefixes.sort_unstable();
        for id in (1..=10).map(IdentityId::from_raw) {
            if let Some(labels) = reserved_labels(id) {
                all.insert(id, &labels);
            }
        }
        for (id, labels) in labels {
            all.insert(id, &labels);
        }
        all
    }

    /// An identity is there, or has other labels than before.
    pub fn insert(&mut self, id: IdentityId, labels: &LabelSet) {
        self.remove(id);
        let at = self.free.pop().unwrap_or_else(|| {
            self.ids.push(id);
            self.ids.len() - 1
        });
        if let Some(place) = self.ids.get_mut(at) {
            *place = id;
        }
        let labels = complete(labels, &self.cluster);
        for label in labels.iter() {
            self.by_key
                .entry(label.key().into())
                .or_default()
                .entry((label.source().into(), label.value().into()))
                .or_default()
                .set(at);
        }
        self.live.set(at);
        self.labels.insert(id, (at, labels));
    }

    /// An identity is there no more.
    pub fn remove(&mut self, id: IdentityId) {
        let Some((at, labels)) = self.labels.remove(&id) else {
            return;
        };
        for label in labels.iter() {
            let Some(values) = self.by_key.get_mut(label.key()) else {
                continue;
            };
            let value = (label.source().into(), label.value().into());
            if let Some(bits) = values.get_mut(&value) {
                bits.clear(at);
                if bits.is_empty() {
                    values.remove(&value);
                }
            }
            if values.is_empty() {
                self.by_key.remove(label.key());
            }
        }
        self.live.clear(at);
        self.free.push(at);
    }

    /// A prefix has an identity.
    pub fn insert_prefix(&mut self, id: IdentityId, prefix: IpNet) {
        let own = (prefix.trunc(), id);
        if let Err(at) = self.prefixes.binary_search(&own) {
            self.prefixes.insert(at, own);
        }
    }

    /// A prefix has no identity any more.
    pub fn remove_prefix(&mut self, prefix: IpNet) {
        let prefix = prefix.trunc();
        self.prefixes.retain(|(own, _)| *own != prefix);
    }

    /// What a compiler that knew `before` has to be told. Both speak about one cluster.
    pub fn changes_since(&self, before: &Self) -> Vec<Change> {
        let labels = |of: &Self, id| of.labels.get(&id).map(|(_, labels)| labels.clone());
        let ids: BTreeSet<_> = self.ids().chain(before.ids()).collect();
        let touched: BTreeSet<LabelSet> = ids
            .into_iter()
            .map(|id| (labels(before, id), labels(self, id)))
            .filter(|(before, now)| before != now)
            .flat_map(|(before, now)| [before, now])
            .flatten()
            .collect();
        let mut changes: Vec<_> = touched.into_iter().map(Change::Labels).collect();
        if self.prefixes != before.prefixes {
            changes.push(Change::Prefixes);
        }
        changes
    }

    /// The cluster policies speak about.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Every identity with labels.
    pub(super) fn ids(&self) -> impl Iterator<Item = IdentityId> + '_ {
        self.labels.keys().copied()
    }

    /// The identities a label selector selects.
    pub(super) fn select(&self, selector: &LabelSelector) -> Vec<IdentityId> {
        let mut found = self.live.clone();
        for requirement in selector.requirements() {
            self.retain(&mut found, requirement);
        }
        let mut ids: Vec<_> = found
            .iter()
            .filter_map(|at| self.ids.get(at).copied())
            .collect();
        self.add_prefixes_of_the_world(&mut ids);
        ids
    }

    /// The peers an entity stands for.
    pub(super) fn entity(&self, entity: Entity) -> Vec<Peer> {
        let reserved_label = |name: &str| {
            LabelSelector::new([Requirement::equals(
                LabelKey {
                    source: source::RESERVED.into(),
                    key: name.into(),
                },
                "",
            )])
        };
        let by_labels = |selectors: Vec<LabelSelector>| {
            let mut ids: Vec<_> = selectors.iter().flat_map(|s| self.select(s)).collect();
            ids.sort_unstable();
            ids.dedup();
            ids.into_iter().map(Peer::Identity).collect()
        };
        let cluster = |operator| {
            let own = Requirement {
                key: LabelKey::k8s(CLUSTER),
                operator,
            };
            let names = [
                "host",
                "remote-node",
                "init",
                "ingress",
                "health",
                "unmanaged",
                "kube-apiserver",
            ];
            let mut selectors: Vec<_> = names.into_iter().map(reserved_label).collect();
            selectors.push(LabelSelector::new([own]));
            selectors
        };
        match entity {
            Entity::All => vec![Peer::Any],
            Entity::None => Vec::new(),
            Entity::Cluster => by_labels(cluster(Operator::In(vec![self.cluster.clone()]))),
            Entity::ClusterMesh => by_labels(cluster(Operator::Exists)),
            Entity::World
            | Entity::Host
            | Entity::RemoteNode
            | Entity::KubeApiserver
            | Entity::Init
            | Entity::Health
            | Entity::Unmanaged
            | Entity::Ingress => by_labels(vec![reserved_label(entity.as_str())]),
        }
    }

    /// The identities of addresses inside a prefix and outside of its exceptions; an error is a
    /// prefix that has no identity.
    pub(super) fn within(&self, prefix: &Prefix) -> Result<Vec<IdentityId>, IpNet> {
        for needed in std::iter::once(&prefix.prefix).chain(&prefix.except) {
            if needed.prefix_len() > 0 && self.known(*needed).next().is_none() {
                return Err(*needed);
            }
        }
        let excepted = |net: &IpNet| prefix.except.iter().any(|out| out.contains(net));
        let mut ids: Vec<_> = self
            .inside(prefix.prefix)
            .filter(|(net, _)| !excepted(net))
            .map(|(_, id)| *id)
            .collect();
        // What no narrower prefix claims is plain world.
        if prefix.prefix.prefix_len() == 0 && !excepted(&prefix.prefix) {
            ids.push(match prefix.prefix {
                IpNet::V4(_) => reserved::WORLD_IPV4,
                IpNet::V6(_) => reserved::WORLD_IPV6,
            });
        }
        Ok(ids)
    }

    fn known(&self, prefix: IpNet) -> impl Iterator<Item = &IdentityId> + '_ {
        let first = self.prefixes.partition_point(|(net, _)| *net < prefix);
        self.prefixes
            .iter()
            .skip(first)
            .take_while(move |(net, _)| *net == prefix)
            .map(|(_, id)| id)
    }

    fn inside(&self, prefix: IpNet) -> impl Iterator<Item = &(IpNet, IdentityId)> + '_ {
        // Networks sort by family and address: those inside begin at the prefix itself.
        let first = self.prefixes.partition_point(|(net, _)| *net < prefix);
        self.prefixes
            .get(first..)
            .unwrap_or_default()
            .iter()
            .take_while(move |(net, _)| prefix.contains(&net.network()))
            .filter(move |(net, _)| prefix.contains(net))
    }

    fn retain(&self, found: &mut Bits, requirement: &Requirement) {
        let mut with_label = Bits::default();
        let any_source = &*requirement.key.source == source::ANY;
        for ((source, value), bits) in self.by_key.get(&requirement.key.key).into_iter().flatten() {
            let value_counts = match &requirement.operator {
                Operator::In(values) | Operator::NotIn(values) => values.contains(value),
                Operator::Exists | Operator::DoesNotExist => true,
            };
            if value_counts && (any_source || *source == requirement.key.source) {
                with_label.add(bits);
            }
        }
        match requirement.operator {
            Operator::In(_) | Operator::Exists => found.keep(&with_label),
            Operator::NotIn(_) | Operator::DoesNotExist => found.remove(&with_label),
        }
    }

    /// A prefix is part of the world: whoever selects the world of a family selects its prefixes.
    fn add_prefixes_of_the_world(&self, ids: &mut Vec<IdentityId>) {
        let v4 = ids.contains(&reserved::WORLD_IPV4);
        let v6 = ids.contains(&reserved::WORLD_IPV6);
        if !v4 && !v6 {
            return;
        }
        ids.extend(self.prefixes.iter().filter_map(|(net, id)| {
            let selected = match net {
                IpNet::V4(_) => v4,
                IpNet::V6(_) => v6,
            };
            selected.then_some(*id)
        }));
        ids.sort_unstable();
        ids.dedup();
    }
}

/// The labels of the world outside, one set for each family.
pub(super) fn worlds() -> [LabelSet; 2] {
    [reserved::WORLD_IPV4, reserved::WORLD_IPV6].map(|id| reserved_labels(id).unwrap_or_default())
}

fn reserved_labels(id: IdentityId) -> Option<LabelSet> {
    let own = Label::reserved(reserved::name(id)?);
    let world = id.is_world().then(|| Label::reserved("world"));
    Some(std::iter::once(own).chain(world).collect())
}

/// A growing set of small numbers.
#[derive(Debug, Clone, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn set(&mut self, at: usize) {
        if self.0.len() <= at / 64 {
            self.0.resize(at / 64 + 1, 0);
        }
        if let Some(word) = self.0.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    fn clear(&mut self, at: usize) {
        if let Some(word) = self.0.get_mut(at / 64) {
            *word &= !(1 << (at % 64));
        }
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The numbers in it, ascending.
    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(nth, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
                rest &= rest - 1;
                Some(nth * 64 + bit)
            })
        })
    }

    fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    fn keep(&mut self, other: &Self) {
        for (at, word) in self.0.iter_mut().enumerate() {
            *word &= other.0.get(at).copied().unwrap_or(0);
        }
    }

    fn remove(&mut self, other: &Self) {
        for (word, less) in self.0.iter_mut().zip(&other.0) {
            *word &= !less;
        }
    }
}
