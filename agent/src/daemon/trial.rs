//! Whether DNS really gets to the proxy and back: a query from a namespace made for it.
//!
//! In:  a running agent.
//! Out: nothing, or why a steered query got no answer; no trace.
//! Not here: the namespace (`pod`), what readiness does with it (`metrics`, `inspector`).
//!
//! The one who asks is an endpoint like any other, with a policy that refuses the name it asks for:
//! the proxy answers by itself, so nobody else's resolver has a part in it.

use dnsproxy_core::EndpointSnapshot;
use fqdn_ebpf_loader::{Attached, EndpointSpec, PolicyId};
use identity::{EndpointId, Label, LabelSet};
use policy::{
    compile::{CompileInput, EnforcementMode, Identities, SelectorTable, compile},
    compiled::EndpointPolicy,
    parse,
};

use crate::{pod::Trial, world::WorldError};

use super::{Loop, engine::Engine, error::DaemonError};

const POLICY: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: trial, namespace: namegate}
spec:
  endpointSelector: {}
  egress:
  - toEntities: [all]
    toPorts:
    - ports: [{port: \"53\", protocol: UDP}]
      rules:
        dns: [{matchName: nothing.namegate.invalid}]
";

/// What is in the kernel for a trial.
#[derive(Debug)]
pub(super) struct Placed {
    id: EndpointId,
    policy: PolicyId,
    attached: Attached,
}

impl Loop {
    /// Asks, and tells `status`, readiness and the log what came of it.
    pub(super) async fn try_steering(&mut self) {
        let failed = self.trial().await.err().map(|error| error.to_string());
        let before = {
            let mut health = self.agent.health();
            std::mem::replace(&mut health.trial, failed.clone())
        };
        match failed {
            Some(reason) if before.as_ref() != Some(&reason) => {
                tracing::error!(reason, "DNS is not steered: no name can be learned");
            }
            None if before.is_some() => tracing::info!("DNS is steered again"),
            _ => {}
        }
    }

    async fn trial(&mut self) -> Result<(), DaemonError> {
        let trial = blocking(|| Ok(Trial::create()?)).await?;
        let placed = self.agent.engine().place(&trial)?;
        let asked = self.ask(trial).await;
        self.agent.engine().displace(placed);
        self.tell().await;
        let links = self.watch.links().await?;
        self.serve_queries(&links).await?;
        asked
    }

    async fn ask(&mut self, trial: Trial) -> Result<(), DaemonError> {
        self.tell().await;
        let links = self.watch.links().await?;
        let mut interfaces = self.agent.engine().query_interfaces(&links);
        interfaces.insert(Trial::INTERFACE.to_owned());
        self.network.serve(&self.watch.handle, &interfaces).await?;
        blocking(move || trial.ask().map_err(DaemonError::Trial)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DaemonError> + Send + 'static,
) -> Result<T, DaemonError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| DaemonError::system("the trial")(error.into()))?
}

impl Engine {
    /// Makes whoever is behind the trial's interface an endpoint.
    fn place(&mut self, trial: &Trial) -> Result<Placed, DaemonError> {
        let compiled = compiled()?;
        let attached = self
            .datapath
            .attach(Trial::INTERFACE, self.config.attach.into())
            .map_err(|error| DaemonError::Trial(error.to_string()))?;
        let placed = Placed {
            id: self.new_endpoint(),
            policy: self.new_policy(),
            attached,
        };
        let (v4, v6) = trial.addresses();
        let spec = EndpointSpec {
            v4: Some(v4),
            v6: v6.into_iter().collect(),
            enforced: Some(placed.policy),
            ..EndpointSpec::new(placed.id, trial.mac)
        };
        let written = self
            .datapath
            .set_policy(placed.policy, &compiled)
            .and_then(|()| self.datapath.set_endpoint(trial.ifindex, &spec));
        if let Err(error) = written {
            self.displace(placed);
            return Err(error.into());
        }
        self.trial = Some(EndpointSnapshot {
            id: placed.id,
            addresses: [Some(v4.into()), v6.map(Into::into)]
                .into_iter()
                .flatten()
                .collect(),
            policy: compiled.into(),
            next: None,
            enforced: None,
            audit: false,
        });
        Ok(placed)
    }

    fn displace(&mut self, placed: Placed) {
        self.trial = None;
        placed.attached.detach();
        let removed = self.datapath.remove_endpoint(placed.id);
        if let Err(error) = removed.and_then(|()| self.datapath.remove_policy(placed.policy)) {
            tracing::warn!(%error, "something of the trial stays in maps");
        }
    }
}

/// What holds for who asks: DNS goes to the proxy, and the proxy refuses.
fn compiled() -> Result<EndpointPolicy, DaemonError> {
    let policies = parse::documents("trial", POLICY)
        .map(|parsed| parsed.policies)
        .unwrap_or_default();
    let labels: LabelSet = [Label::k8s("io.kubernetes.pod.namespace", "namegate")]
        .into_iter()
        .collect();
    let compiled = compile(
        &CompileInput {
            policies: &policies,
            subject: &labels,
            identities: &Identities::new(policy::selector::DEFAULT_CLUSTER, [], []),
            mode: EnforcementMode::Default,
            allow_local_host: false,
            steer_dns: false,
        },
        &mut SelectorTable::default(),
    );
    Ok(compiled.map_err(WorldError::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_policy_steers_dns_and_allows_nothing_else() {
        let policy = compiled().unwrap();
        assert!(policy.default_deny_egress);
        assert!(!policy.entries.is_empty());
        assert!(
            policy
                .entries
                .iter()
                .all(|entry| format!("{:?}", entry.action).contains("RedirectDns")),
            "{policy:?}"
        );
    }
}
