//! The disk: rows and records of batches that were committed whole. What was not is gone
//! with a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use seawall_kernel::agents::{Batch, Shard};
use seawall_model::durable::{AgentRow, Row, RunRow, Standing, ValueRow};
use seawall_model::{Address, At, Payload, RunKey, Tenant};

use super::actor::State;

/// Agents by when time alone wakes them, and where to go on.
pub type Due = (Vec<(Address, At)>, Option<(At, u64)>);

/// Everything that is durable.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// Rows, as shards with everything in them.
    pub shards: Vec<Shard>,
    /// Working states.
    pub states: BTreeMap<RunKey, State>,
    /// Commits so far.
    pub commits: u64,
}

impl Disk {
    /// An empty disk of so many shards.
    #[must_use]
    pub fn new(shards: u8) -> Self {
        Self { shards: (0..shards).map(Shard::new).collect(), ..Self::default() }
    }

    /// One transaction.
    pub fn commit(&mut self, batch: &Batch) {
        self.commits += 1;
        for row in &batch.rows {
            self.keep(row);
        }
    }

    /// Half of a transaction, as no disk may ever have it.
    pub fn tear(&mut self, batch: &Batch) {
        for row in &batch.rows[..batch.rows.len() / 2] {
            self.keep(row);
        }
    }

    fn of(&mut self, tenant: &Tenant) -> &mut Shard {
        let at = seawall_kernel::agents::shard_of(tenant, self.shards.len());
        &mut self.shards[at]
    }

    fn keep(&mut self, row: &Row) {
        match row {
            Row::Shard(row) => self.shards[usize::from(row.shard)].row = row.clone(),
            Row::Agent(row) => {
                self.of(&row.address.tenant).agents.insert(row.address.clone(), row.clone());
            }
            Row::Run(row) => {
                self.of(&row.agent.tenant).runs.insert(row.key, row.clone());
            }
            Row::State { run, key, value: Some(value) } => {
                self.states.entry(*run).or_default().insert(key.clone(), value.clone());
            }
            Row::State { run, key, value: None } => {
                self.states.entry(*run).or_default().remove(key);
            }
            Row::NoState { run } => {
                self.states.remove(run);
            }
            Row::Value(row) => {
                self.of(&row.tenant).values.insert((row.tenant.clone(), row.key.clone()), row.clone());
            }
            Row::Lease(row) => {
                self.of(&row.tenant).leases.insert((row.tenant.clone(), row.resource.clone()), row.clone());
            }
            Row::Topic(row) => {
                self.of(&row.tenant).topics.insert((row.tenant.clone(), row.topic.clone()), row.clone());
            }
            Row::NoLease { tenant, resource } => {
                self.of(tenant).leases.remove(&(tenant.clone(), resource.clone()));
            }
            Row::NoTopic { tenant, topic } => {
                self.of(tenant).topics.remove(&(tenant.clone(), topic.clone()));
            }
            Row::Schedule(row) => {
                self.of(&row.agent.tenant).schedules.insert(row.agent.clone(), row.clone());
            }
            Row::Letter(row) => {
                self.of(&row.to.tenant).letters.insert(row.number, (**row).clone());
            }
            Row::NoLetter { shard, number } => {
                self.shards[usize::from(*shard)].letters.remove(number);
            }
        }
    }

    /// Shards as they are opened: everything but agents, runs and values, which come when
    /// they are wanted.
    #[must_use]
    pub fn opened(&self) -> Vec<Shard> {
        let open = |shard: &Shard| Shard {
            agents: BTreeMap::new(),
            runs: BTreeMap::new(),
            values: BTreeMap::new(),
            ..shard.clone()
        };
        self.shards.iter().map(open).collect()
    }

    /// Runs that are not over.
    #[must_use]
    pub fn runs_live(&self) -> usize {
        self.shards.iter().flat_map(|shard| shard.runs.values()).filter(|run| !run.state.over()).count()
    }

    /// Agents that have work by now or kin, with all that they need.
    #[must_use]
    pub fn at_work(&self, now: At) -> (Vec<AgentRow>, Vec<RunRow>) {
        let kin = |shard: &Shard, row: &AgentRow| {
            let mut runs = row.run.iter().chain(&row.queue).map(|run| &shard.runs[run]);
            runs.any(|run| run.parent.is_some() || !run.children.is_empty())
        };
        let all = self.shards.iter().flat_map(|shard| shard.agents.values().map(move |row| (shard, row)));
        let work = all
            .filter(|(_, row)| matches!(row.standing, Standing::Active | Standing::Quarantined))
            .filter(|(shard, row)| row.due() <= now || kin(shard, row));
        self.closure(work.map(|(_, row)| row.address.clone()))
    }

    /// Agents by when time alone wakes them, as [`seawall_kernel::agents::Effect::LoadDue`]
    /// asks; a row's number is made of its name.
    #[must_use]
    pub fn due(&self, from: (At, u64), before: At, max: usize) -> Due {
        let all = self.shards.iter().flat_map(|shard| shard.agents.values());
        let mut due: Vec<(At, u64, &Address)> =
            all.map(|row| (row.due(), number_of(&row.address), &row.address)).collect();
        due.retain(|(at, number, _)| *at > At(0) && *at < before && (*at, *number) > from);
        due.sort_unstable();
        let next = due.get(max.wrapping_sub(1)).map(|(at, number, _)| (*at, *number));
        (due.into_iter().take(max).map(|(at, _, address)| (address.clone(), at)).collect(), next)
    }

    /// One agent, those above it, and their runs.
    #[must_use]
    pub fn load(&self, address: &Address) -> (Vec<AgentRow>, Vec<RunRow>) {
        self.closure([address.clone()])
    }

    fn closure(&self, from: impl IntoIterator<Item = Address>) -> (Vec<AgentRow>, Vec<RunRow>) {
        let (mut agents, mut runs) = (BTreeMap::new(), BTreeMap::new());
        let mut known = BTreeSet::new();
        let mut next: Vec<Address> = from.into_iter().collect();
        while let Some(address) = next.pop() {
            if !known.insert(address.clone()) {
                continue;
            }
            let at = seawall_kernel::agents::shard_of(&address.tenant, self.shards.len());
            let shard = &self.shards[at];
            let Some(agent) = shard.agents.get(&address) else { continue };
            let mut path: Vec<RunKey> = agent.run.iter().chain(&agent.queue).copied().collect();
            while let Some(key) = path.pop() {
                let Some(run) = shard.runs.get(&key) else { continue };
                if runs.insert(key, (**run).clone()).is_none() {
                    next.push(run.agent.clone());
                    path.extend(run.parent.map(|effect| effect.run));
                }
            }
            agents.insert(address, (**agent).clone());
        }
        (agents.into_values().collect(), runs.into_values().collect())
    }

    /// One value.
    #[must_use]
    pub fn value(&self, tenant: &Tenant, key: &Arc<str>) -> Option<&ValueRow> {
        let at = seawall_kernel::agents::shard_of(tenant, self.shards.len());
        self.shards[at].values.get(&(tenant.clone(), key.clone()))
    }

    /// What a reader of the value is told: its version, and what it says.
    #[must_use]
    pub fn read(&self, tenant: &Tenant, key: &Arc<str>) -> Payload {
        let row = self.value(tenant, key);
        let value = row.and_then(|row| row.value.as_ref()).and_then(|value| value.here()).unwrap_or_default();
        let version = row.filter(|row| row.value.is_some()).map_or(0, |row| row.version);
        Payload::text(&format!("{version} {}", String::from_utf8_lossy(value)))
    }
}

/// FNV-1a (Fowler, Noll, Vo).
fn number_of(address: &Address) -> u64 {
    address
        .to_string()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
