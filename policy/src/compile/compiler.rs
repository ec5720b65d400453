//! One endpoint's policies, compiled and kept up to date.
//!
//! In:  one change after another: a policy, an identity, the surroundings.
//! Out: what changed among the entries; [`EndpointPolicy`] as a whole.
//! Not here: what one rule comes to (`expand`), what all come to for one peer (`chunk`).
//!
//! Rules become parts, parts fall into one chunk per direction and peer, chunks are settled each by
//! itself. A change settles the chunks anew whose grants differ, and all of them only where it
//! changes what holds for every peer (`chunk::Common`). Compiling from scratch is the same: one
//! change after another into an empty compiler.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use identity::LabelSet;

use super::{
    CompileError, CompileInput, EnforcementMode, Identities, SelectorTable, Surroundings,
    chunk::{self, Common, Place, Settled, Way},
    dns::{self, Steered},
    expand::{self, Room, Shelf},
    frontends, identities,
    interner::Interner,
    part::{Around, Grant, Part, PartKey, RuleIndex, Tally},
};
use crate::{
    compiled::{Direction, DnsRule, EndpointPolicy, Entry, Peer, RuleSet, RuleSetId, Selectors},
    model::Policy,
    selector::complete,
};

/// What rules select from.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// The identities peers can have.
    pub identities: &'a Identities,
    /// What rules may refer to besides them.
    pub around: &'a Surroundings,
}

/// What does not change about an endpoint.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The endpoint's labels as policies see them (`selector::complete`).
    pub subject: LabelSet,
    /// When endpoints are restricted.
    pub mode: EnforcementMode,
    /// Whether the local node may reach the endpoint unless a rule denies it (kubelet probes).
    pub allow_local_host: bool,
    /// Whether all allowed DNS goes through the proxy even where no rule asks for it.
    pub steer_dns: bool,
}

/// One change. What it is about has changed in the [`World`] already.
#[derive(Clone, Debug)]
pub enum Change {
    /// Under this number of the caller's there is this policy, or none any more.
    Policy(u32, Option<Arc<Policy>>),
    /// Identities with these labels came or went.
    Labels(LabelSet),
    /// Identities of prefixes came or went.
    Prefixes,
    /// Groups, services, names of ports or addresses are others.
    Surroundings,
}

/// What became of the entries, those about frontends of services excepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Entries that are no more.
    pub removed: Vec<Entry>,
    /// Entries that are new.
    pub added: Vec<Entry>,
}

/// The grants about one peer in one direction, and what they come to.
#[derive(Debug, Default)]
struct Chunk {
    grants: Vec<Grant>,
    entries: Vec<Entry>,
    asked: Vec<DnsRule>,
}

/// The policies of one endpoint.
#[derive(Debug)]
pub struct Compiler {
    settings: Settings,
    always: bool,
    shelf: Shelf,
    sets: Interner<Vec<RuleIndex>>,
    parts: BTreeMap<PartKey, Part>,
    chunks: BTreeMap<Place, Chunk>,
    tally: Tally,
    common: Common,
}

impl Compiler {
    /// An endpoint without policies.
    pub fn new(settings: Settings) -> Self {
        let always = settings.mode == EnforcementMode::Always
            || settings
                .subject
                .iter()
                .any(|l| l.source() == identity::source::RESERVED && l.key() == "init");
        Self {
            settings,
            always,
            shelf: Shelf::default(),
            sets: Interner::default(),
            parts: BTreeMap::new(),
            chunks: BTreeMap::new(),
            tally: Tally::default(),
            common: Common::default(),
        }
    }

    /// Takes a change in.
    ///
    /// # Errors
    /// When a prefix of a policy has no identity, or rules contradict each other: nothing has
    /// changed then.
    pub fn apply(
        &mut self,
        world: &World<'_>,
        selectors: &mut SelectorTable,
        changes: &[Change],
    ) -> Result<Diff, CompileError> {
        if self.settings.mode == EnforcementMode::Never {
            return Ok(Diff::default());
        }
        let mut next: BTreeMap<PartKey, Option<Part>> = BTreeMap::new();
        if let Err(error) = self.expand(world, selectors, changes, &mut next) {
            self.release(next.into_values());
            return Err(error);
        }
        let mut touched = BTreeSet::new();
        let before = self.exchange(next, &mut touched);
        match self.settle(&touched) {
            Ok(diff) => {
                self.release(before.into_values());
                Ok(diff)
            }
            Err(error) => {
                // What stood before was settled once: nothing has to be settled again.
                let refused = self.exchange(before, &mut BTreeSet::new());
                self.release(refused.into_values());
                Err(error)
            }
        }
    }

    /// The parts that change: new ones, or none where one goes.
    fn expand(
        &mut self,
        world: &World<'_>,
        selectors: &mut SelectorTable,
        changes: &[Change],
        next: &mut BTreeMap<PartKey, Option<Part>>,
    ) -> Result<(), CompileError> {
        let (mut grants, mut origins) = (self.tally.grants, self.tally.origins);
        let mut wanted: BTreeMap<PartKey, Option<(Arc<Policy>, usize)>> = BTreeMap::new();
        let worlds = identities::worlds();
        let mut completed;
        for change in changes {
            let around = match change {
                Change::Policy(number, policy) => {
                    let own = (*number, 0)..=(*number, u32::MAX);
                    wanted.extend(self.parts.range(own).map(|(key, _)| (*key, None)));
                    let rules = policy
                        .iter()
                        .flat_map(|p| p.rules.iter().map(move |r| (p, r)));
                    for ((policy, rule), at) in rules.zip(0u32..) {
                        if rule.subject.matches(&self.settings.subject) {
                            let rule = (Arc::clone(policy), at as usize);
                            wanted.insert((*number, at), Some(rule));
                        }
                    }
                    continue;
                }
                Change::Labels(labels) => {
                    completed = complete(labels, world.identities.cluster());
                    Around::Labels(&completed)
                }
                Change::Prefixes => Around::Prefixes(&worlds),
                Change::Surroundings => Around::Surroundings,
            };
            for (key, part) in &self.parts {
                if part.rule().is_some_and(|rule| around.touches(rule)) {
                    let same = || Some((Arc::clone(&part.policy), part.at));
                    wanted.entry(*key).or_insert_with(same);
                }
            }
        }
        for (key, rule) in wanted {
            if let Some(old) = self.parts.get(&key) {
                grants = grants.saturating_sub(old.grants.len() + old.l7.len());
                origins = origins.saturating_sub(old.origins.len());
            }
            let Some((policy, at)) = rule else {
                next.insert(key, None);
                continue;
            };
            let room = Room::beside(grants, origins);
            let part = expand::part(&policy, at, world, selectors, &mut self.shelf, room)?;
            grants = grants.saturating_add(part.grants.len() + part.l7.len());
            origins = origins.saturating_add(part.origins.len());
            next.insert(key, Some(part));
        }
        Ok(())
    }

    fn release(&mut self, parts: impl Iterator<Item = Option<Part>>) {
        for part in parts.flatten() {
            self.shelf.release(&part);
        }
    }

    /// Puts parts in the place of others and returns those. `touched`: whose grants differ.
    fn exchange(
        &mut self,
        next: BTreeMap<PartKey, Option<Part>>,
        touched: &mut BTreeSet<Place>,
    ) -> BTreeMap<PartKey, Option<Part>> {
        let mut before = BTreeMap::new();
        for (key, part) in next {
            let old = self.parts.remove(&key);
            if let Some(old) = &old {
                self.tally.count(old, false);
            }
            let of =
                |part: &Option<Part>| part.as_ref().map_or_else(Vec::new, |p| p.grants.clone());
            let (gone, come) = differences(&of(&old), &of(&part));
            for grant in gone {
                let place = (grant.direction, grant.peer);
                touched.insert(place);
                if let Some(chunk) = self.chunks.get_mut(&place)
                    && let Some(at) = chunk.grants.iter().position(|own| *own == grant)
                {
                    chunk.grants.swap_remove(at);
                }
            }
            for grant in come {
                let place = (grant.direction, grant.peer);
                touched.insert(place);
                self.chunks.entry(place).or_default().grants.push(grant);
            }
            if let Some(part) = part {
                self.tally.count(&part, true);
                self.parts.insert(key, part);
            }
            before.insert(key, old);
        }
        before
    }

    /// What holds for every peer.
    fn common(&self) -> Common {
        let way = |direction| Way {
            default_deny: self.always || self.tally.shuts(direction),
            shut: self.tally.shuts(direction),
        };
        let ingress = way(Direction::Ingress);
        Common {
            ingress,
            egress: way(Direction::Egress),
            // Mode `always` shuts out even the local node until a first ingress rule speaks.
            host: ingress.default_deny
                && self.tally.has_ingress_rules()
                && self.settings.allow_local_host,
            learns: self.settings.steer_dns || self.tally.has_names(),
            accepted: self.tally.accepted().collect(),
        }
    }

    /// Settles what was touched, or everything where something changed that holds for everybody.
    fn settle(&mut self, touched: &BTreeSet<Place>) -> Result<Diff, CompileError> {
        let common = self.common();
        let everybody: Vec<Place> = [Direction::Ingress, Direction::Egress]
            .into_iter()
            .map(|direction| (direction, Peer::Any))
            .filter(|place| touched.contains(place))
            .collect();
        let all = common != self.common || (!everybody.is_empty() && !common.accepted.is_empty());
        let places: Vec<Place> = if all {
            let own = self.chunks.keys().copied();
            let mut places: BTreeSet<Place> = own.chain(Common::UNWRITTEN).collect();
            places.extend(touched);
            places.into_iter().collect()
        } else {
            touched.iter().copied().collect()
        };
        // Nothing is stored before everything is settled: contradictions change nothing.
        let mut settled = Vec::with_capacity(places.len());
        for place in places {
            settled.push((place, self.settle_one(place, &common)?));
        }
        self.common = common;
        let mut diff = Diff::default();
        for (place, settled) in settled {
            self.store(place, settled, &mut diff);
        }
        Ok(diff)
    }

    fn settle_one(&self, place: Place, common: &Common) -> Result<Settled, CompileError> {
        let grants = |place| {
            self.chunks
                .get(&place)
                .map_or(&[][..], |chunk| &chunk.grants)
        };
        let origin = |number| self.shelf.origins.get(number);
        let everybody = grants((place.0, Peer::Any));
        chunk::settle(place, grants(place), everybody, common, origin)
    }

    fn store(&mut self, (direction, peer): Place, settled: Settled, diff: &mut Diff) {
        let entries: Vec<Entry> = settled
            .layers
            .into_iter()
            .map(|layer| Entry {
                direction,
                peer,
                l4: layer.l4,
                action: layer.action,
                precedence: layer.precedence,
                // Numbers of sets fit: there are fewer than grants.
                rule_set: RuleSetId::from_raw(self.sets.acquire(layer.rules)),
            })
            .collect();
        let place = (direction, peer);
        let chunk = self.chunks.entry(place).or_default();
        let (gone, come) = differences(&chunk.entries, &entries);
        diff.removed.extend(gone);
        diff.added.extend(come);
        for entry in &chunk.entries {
            self.sets.release(entry.rule_set.get());
        }
        chunk.entries = entries;
        chunk.asked = settled.asked;
        if chunk.grants.is_empty() && chunk.entries.is_empty() {
            self.chunks.remove(&place);
        }
    }

    /// Everything as one value.
    pub fn policy(&self, around: &Surroundings) -> EndpointPolicy {
        if self.settings.mode == EnforcementMode::Never {
            return EndpointPolicy::default();
        }
        let Common {
            ingress, egress, ..
        } = self.common;
        // Where rules of the normal tier end in a deny, the tier after it is never asked.
        let shut = |direction| self.common.of(direction).shut;
        let parts = || {
            let parts = self.parts.values();
            parts.filter(|part| !(shut(Direction::Egress) && part.is_baseline()))
        };
        let asks = || parts().flat_map(|part| &part.asks);
        let mut steered: Steered = asks().flat_map(dns::Ask::restricts).collect();
        if self.common.learns {
            steered.extend(dns::by_names());
        }
        let mut dns_rules: Vec<DnsRule> = asks()
            .flat_map(|ask| ask.rules(&steered, egress.default_deny))
            .collect();
        if !egress.default_deny {
            dns_rules.extend(dns::unrestricted(&steered));
        }
        dns_rules.extend(
            self.chunks
                .values()
                .flat_map(|chunk| chunk.asked.iter().cloned()),
        );
        let mut shut_by: Vec<_> = self
            .parts
            .values()
            .flat_map(|part| {
                [Direction::Ingress, Direction::Egress]
                    .into_iter()
                    .filter(|direction| part.rule().is_some_and(|r| r.default_deny(*direction)))
                    .map(|direction| (direction, part.policy.reference.clone()))
            })
            .collect();
        shut_by.sort_unstable();
        shut_by.dedup();
        let origin = |number: &RuleIndex| self.shelf.origins.get(*number).cloned();
        let set =
            |rules: &Arc<Vec<RuleIndex>>| rules.iter().filter_map(origin).collect::<RuleSet>();
        let mut policy = EndpointPolicy {
            default_deny_ingress: ingress.default_deny,
            default_deny_egress: egress.default_deny,
            shut_by,
            entries: self
                .chunks
                .values()
                .flat_map(|chunk| chunk.entries.iter().copied())
                .collect(),
            rule_sets: self
                .sets
                .slots()
                .map(|slot| slot.map(set).unwrap_or_default())
                .collect(),
            selectors: parts()
                .flat_map(|part| part.selectors.iter().cloned())
                .collect::<Selectors>(),
            dns_rules,
            needs_proxy: self
                .parts
                .values()
                .filter(|part| !part.is_baseline())
                .flat_map(|part| part.l7.iter().cloned())
                .collect(),
        }
        .sorted();
        frontends::decide(&mut policy, &around.frontends);
        policy
    }

    /// How many entries there are, those about frontends of services excepted.
    pub fn len(&self) -> usize {
        self.chunks.values().map(|chunk| chunk.entries.len()).sum()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Settings {
    /// The settings of an endpoint with these labels.
    pub fn new(labels: &LabelSet, cluster: &str, mode: EnforcementMode) -> Self {
        Self {
            subject: complete(labels, cluster),
            mode,
            allow_local_host: true,
            steer_dns: false,
        }
    }

    /// The settings that an input states.
    pub(super) fn of(input: &CompileInput<'_>) -> Self {
        Self {
            allow_local_host: input.allow_local_host,
            steer_dns: input.steer_dns,
            ..Self::new(input.subject, input.identities.cluster(), input.mode)
        }
    }
}

/// What is in one sorted list and not in the other: gone, come.
fn differences<T: Ord + Copy>(before: &[T], after: &[T]) -> (Vec<T>, Vec<T>) {
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    loop {
        match (old.peek(), new.peek()) {
            (None, None) => return (gone, come),
            (Some(a), Some(b)) if a == b => {
                old.next();
                new.next();
            }
            (Some(a), Some(b)) if a > b => come.extend(new.next().copied()),
            (Some(_), _) => gone.extend(old.next().copied()),
            (None, Some(_)) => come.extend(new.next().copied()),
        }
    }
}
