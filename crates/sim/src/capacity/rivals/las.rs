//! Least attained service, charged when a call is complete: the `las` strategy of llm-d's
//! program-aware fairness (llm-d/llm-d-router at ebab687,
//! `pkg/epp/framework/plugins/flowcontrol/fairness/program-aware/strategy_las.go`). The
//! score is 0.8 of how little was served, with a half-life of 60 s, and 0.2 of how long
//! the head has waited, both scaled to the range over the clients that wait. One per
//! prompt token and two per generated one.

use std::collections::BTreeMap;

use seawall_model::At;

use super::{Order, Queues};
use crate::capacity::replay::{Ask, Scene};

const WEIGHT_SERVICE: f64 = 0.8;
const WEIGHT_WAIT: f64 = 0.2;
const HALF_LIFE_S: f64 = 60.0;

/// What each client was served, as of a time.
#[derive(Debug, Default)]
pub struct Las {
    queues: Queues,
    attained: BTreeMap<usize, (f64, At)>,
}

impl Las {
    fn service(&self, client: usize, now: At) -> f64 {
        let (service, since) = self.attained.get(&client).copied().unwrap_or((0.0, now));
        service * (-(now.micros_since(since) as f64) / 1e6 / HALF_LIFE_S).exp2()
    }
}

/// Where a value lies between the least and the most.
fn within(value: f64, least: f64, most: f64) -> f64 {
    if most > least { (value - least) / (most - least) } else { 0.0 }
}

impl Order for Las {
    fn push(&mut self, scene: Scene<'_>, call: usize) {
        self.queues.push(scene.asks[call].client, call);
    }

    fn head(&mut self, scene: Scene<'_>) -> Option<usize> {
        let entry = |(client, call): (usize, usize)| {
            let waited = scene.now.micros_since(scene.asks[call].at()) as f64;
            (call, self.service(client, scene.now), waited)
        };
        let entries: Vec<(usize, f64, f64)> = self.queues.heads().map(entry).collect();
        let range = |of: fn(&(usize, f64, f64)) -> f64| {
            let values = entries.iter().map(of);
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            })
        };
        let (services, waits) = (range(|entry| entry.1), range(|entry| entry.2));
        let mut best: Option<(f64, usize)> = None;
        for (call, service, waited) in &entries {
            let score = WEIGHT_SERVICE * (1.0 - within(*service, services.0, services.1))
                + WEIGHT_WAIT * within(*waited, waits.0, waits.1);
            if best.is_none_or(|(most, _)| score > most) {
                best = Some((score, *call));
            }
        }
        best.map(|(_, call)| call)
    }

    fn pop(&mut self, ask: &Ask, _sent: bool) {
        self.queues.pop(ask.client);
    }

    fn done(&mut self, now: At, ask: &Ask) {
        let service = self.service(ask.client, now) + ask.cost() as f64;
        self.attained.insert(ask.client, (service, now));
    }
}
