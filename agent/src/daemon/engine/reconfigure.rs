//! Another configuration while everything runs: endpoints and resolvers.
//!
//! In:  the configuration as it was read again.
//! Out: workloads and resolvers that agree with it; what of it takes a restart.
//! Not here: policies for who is new (`policies`), interfaces (`endpoints`).

use std::sync::Arc;

use super::{
    super::{config::Config, error::DaemonError, workload::Workload},
    Engine,
};

impl Engine {
    /// Endpoints that are gone are let go of, those that changed begin anew behind programs that stay
    /// where they are. Returns the settings that differ and take a restart.
    pub(crate) fn reconfigure(&mut self, read: Config) -> Result<Vec<&'static str>, DaemonError> {
        let late = read.needs_restart(&self.config);
        let config = Arc::new(Config {
            endpoints: read.endpoints,
            policies: read.policies,
            world: read.world,
            resolvers: read.resolvers,
            ..Config::clone(&self.config)
        });
        // Numbers first: when there are none left, nothing has changed yet.
        let own: Vec<_> = config.endpoints.iter().map(|e| e.facts()).collect();
        let universe = self.catalog.universe(&self.content.world, &own)?;
        let mut resolvers = Vec::new();
        for resolver in &config.resolvers {
            let identity = match resolver.label_set() {
                Some(labels) => Some(self.catalog.intern(&labels)?),
                None => None,
            };
            resolvers.push((resolver.address().to_canonical(), identity));
        }
        self.resolvers = resolvers;
        let mut before = std::mem::take(&mut self.workloads);
        for endpoint in &config.endpoints {
            let workload = match before.remove(&endpoint.interface) {
                Some(old) if old.config == *endpoint => old,
                Some(mut old) => {
                    self.vacate(&mut old);
                    let mut workload = Workload::new(endpoint.clone());
                    workload.attached = old.attached.take();
                    workload.loose = old.loose;
                    workload
                }
                None => Workload::new(endpoint.clone()),
            };
            self.workloads.insert(endpoint.interface.clone(), workload);
        }
        for (interface, mut old) in before {
            self.vacate(&mut old);
            if let Some((_, attached)) = old.attached.take() {
                attached.detach();
                tracing::info!(interface, "left alone: it is no endpoint any more");
            }
        }
        let subjects = self.subjects(&universe);
        self.call(&universe, subjects);
        self.config = config;
        self.reconfigured = true;
        self.write_book()?;
        Ok(late)
    }
}
