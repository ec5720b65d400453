//! The world as the policies of one command see it: the command, its resolver, its host, the rest.
//!
//! In:  labels and namespace of the command, policies, facts, the addresses of pod, gateway, host.
//! Out: the compiled policy, the identity of every address ([`AddressBook`]).
//! Not here: what policies mean (`policy`), writing any of it to maps.
//!
//! The gateway's resolver carries the labels of kube-dns in kube-system, so that egress policies
//! written for a cluster allow it without a change.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use identity::{
    AddressBook, IdentitiesExhausted, IdentityId, Label, LabelIdentities, LabelSet, LocalIdentities,
};
use policy::{
    compile::{
        CompileError, CompileInput, EnforcementMode, SelectorTable, Surroundings, compile_layered,
        prefixes_in,
    },
    compiled::Layered,
    model::{CidrGroup, Policy},
};

use crate::facts::{self, InputError, Sourced, Universe, View};

/// Why the world cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// More label sets or prefixes than numbers.
    #[error(transparent)]
    Identities(#[from] IdentitiesExhausted),
    /// A policy that cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A mistake in the file of facts.
    #[error(transparent)]
    Facts(#[from] InputError),
}

/// The compiled view of one command.
#[derive(Debug)]
pub(crate) struct World {
    /// The command's identity.
    pub(crate) pod: IdentityId,
    /// The command's labels, namespace labels included.
    pub(crate) labels: LabelSet,
    /// What it may do.
    pub(crate) policies: Layered,
    /// The numbers of label sets.
    pub(crate) ids: LabelIdentities,
    /// The numbers of selectors.
    pub(crate) selectors: SelectorTable,
    resolver: IdentityId,
    view: View,
}

/// What a command is restricted by.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// What it may do.
    pub policies: Vec<Policy>,
    /// Groups of prefixes that policies refer to.
    pub groups: Vec<CidrGroup>,
    /// What is known about the world around it.
    pub facts: Sourced<facts::World>,
}

/// Addresses that are known for what they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownAddresses {
    /// The command's own.
    pub(crate) pod: Vec<IpAddr>,
    /// The gateway's towards the command: its resolver.
    pub(crate) gateway: Vec<IpAddr>,
    /// The host's, on any interface.
    pub(crate) host: Vec<IpAddr>,
}

/// Labels of the command as policies select it.
pub(crate) fn pod_labels(namespace: &str, labels: impl IntoIterator<Item = Label>) -> LabelSet {
    namespace_labels(namespace)
        .into_iter()
        .chain(labels)
        .collect()
}

impl World {
    /// Compiles the policies for the command; prefixes get their numbers from `locals`.
    pub(crate) fn compile(
        given: &Given,
        labels: LabelSet,
        locals: &mut LocalIdentities,
    ) -> Result<Self, WorldError> {
        let mut ids = LabelIdentities::default();
        let pod = ids.intern(&labels)?;
        let resolver = ids.intern(&resolver_labels())?;
        let universe = Universe::new(&given.facts, &[], &mut ids)?;
        let mut groups = facts::groups(&given.facts)?;
        groups.extend(given.groups.iter().cloned());
        let around = Surroundings {
            groups: groups.clone(),
            ..Surroundings::default()
        };
        let mut numbers = BTreeMap::new();
        for prefix in prefixes_in(&given.policies, &around)
            .into_iter()
            .chain(universe.prefixes())
        {
            numbers.insert(prefix, locals.cidr(prefix)?);
        }
        let view = View::new(&universe, universe.local, &ids, &numbers, &groups);
        let mut selectors = SelectorTable::default();
        let mut policies = compile_layered(
            &CompileInput {
                policies: &given.policies,
                subject: &labels,
                identities: &view.identities,
                mode: EnforcementMode::Default,
                allow_local_host: true,
                steer_dns: true,
            },
            &view.around,
            &mut selectors,
        )?;
        // Nobody has a reason to open a connection to a command unless a policy says so. Without this,
        // a stale connection of the host's conntrack could reach whoever got its old address.
        for policy in std::iter::once(&mut policies.whole).chain(&mut policies.enforced) {
            Arc::make_mut(policy).default_deny_ingress = true;
        }
        Ok(Self {
            pod,
            labels,
            policies,
            ids,
            selectors,
            resolver,
            view,
        })
    }

    /// Which identity every known address has. What is several things at once is the most
    /// specific: the gateway's address is the resolver before it is the host.
    pub(crate) fn address_book(&self, known: &KnownAddresses) -> AddressBook {
        let gateway = known.gateway.iter();
        let resolvers: Vec<_> = gateway.map(|address| (*address, self.resolver)).collect();
        let mut book = self.view.address_book(&known.host, &resolvers);
        for address in &known.pod {
            book.insert_address(*address, self.pod);
        }
        book
    }
}

/// What a resolver is taken for unless somebody says otherwise.
pub(crate) fn resolver_labels() -> LabelSet {
    namespace_labels("kube-system")
        .into_iter()
        .chain([Label::k8s("k8s-app", "kube-dns")])
        .collect()
}

fn namespace_labels(namespace: &str) -> [Label; 2] {
    [
        Label::k8s("io.kubernetes.pod.namespace", namespace),
        Label::k8s(
            "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name",
            namespace,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use identity::reserved;
    use policy::{compiled::DnsVerdict, fqdn::Fqdn, parse};

    use super::*;

    const ARGOCD: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: argocd-egress, namespace: argocd}
spec:
  endpointSelector: {}
  egress:
  - toFQDNs:
    - matchPattern: "*.github.com"
    toPorts:
    - ports: [{port: "443", protocol: TCP}]
  - toEndpoints:
    - matchLabels:
        k8s:io.kubernetes.pod.namespace: kube-system
        k8s:k8s-app: kube-dns
    toPorts:
    - ports: [{port: "53", protocol: ANY}]
  - toCIDR: [192.0.2.0/24]
"#;

    fn world() -> (World, LocalIdentities) {
        let given = Given {
            policies: parse::documents("p.yaml", ARGOCD).unwrap().policies,
            ..Given::default()
        };
        let mut locals = LocalIdentities::default();
        let world = World::compile(&given, pod_labels("argocd", []), &mut locals).unwrap();
        (world, locals)
    }

    #[test]
    fn a_policy_for_a_cluster_finds_its_resolver_at_the_gateway() {
        let (world, _) = world();
        let gateway: IpAddr = "198.18.0.1".parse().unwrap();
        let book = world.address_book(&KnownAddresses {
            gateway: vec![gateway],
            host: vec![gateway],
            ..KnownAddresses::default()
        });
        let name = Fqdn::parse("api.github.com").unwrap();
        let verdict = world
            .policies
            .whole
            .may_ask(book.lookup(gateway), false, 53, &name);
        assert!(matches!(verdict, DnsVerdict::Allowed { .. }), "{verdict:?}");
        assert_eq!(world.policies.whole.selectors_matching(&name).len(), 1);
    }

    #[test]
    fn an_address_of_a_rule_has_the_identity_of_its_prefix() {
        let (world, locals) = world();
        let book = world.address_book(&KnownAddresses::default());
        let id = book.lookup("192.0.2.9".parse().unwrap());
        assert!(id.is_local_scope());
        assert!(locals.get(id).is_some());
        assert_eq!(
            book.lookup("203.0.113.9".parse().unwrap()),
            reserved::WORLD_IPV4
        );
    }
}
