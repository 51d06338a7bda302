//! The catalogue of metrics: every name, its labels and its meaning in one place per
//! subject. Names follow OpenTelemetry's GenAI conventions where one exists. No label
//! ever holds content, a key or an unbounded value (I11).

mod agents;
mod calls;
mod label;
mod looks;
mod service;

use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use prometheus_client::registry::Registry;

use crate::app::App;

use agents::AgentLooks;
use calls::Calls;
use looks::Looks;
use service::Service;

/// Every metric.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// What calls did.
    pub calls: Calls,
    /// What the process did.
    pub service: Service,
    looks: Looks,
    agents: AgentLooks,
    /// Held while a page is made: a look clears gauges that may be gone and sets them
    /// anew, and a second page in between would miss some.
    page: Mutex<()>,
}

impl Metrics {
    /// Makes and registers every metric.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let calls = Calls::register(&mut registry);
        let service = Service::register(&mut registry);
        let looks = Looks::register(&mut registry);
        let agents = AgentLooks::register(&mut registry);
        Self { registry, calls, service, looks, agents, page: Mutex::new(()) }
    }

    /// Renders the page, in OpenMetrics text. The kernel's and the process's figures are
    /// read now.
    #[must_use]
    pub fn page(&self, app: &App) -> String {
        let _alone = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        self.looks.look(app);
        self.agents.look(app);
        let mut page = String::with_capacity(16 << 10);
        if prometheus_client::encoding::text::encode(&mut page, &self.registry).is_err() {
            // Writing to a string cannot fail; a comment is better than a panic.
            let _ = writeln!(page, "# the page could not be rendered");
        }
        page
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
