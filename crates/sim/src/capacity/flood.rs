//! A flood of batch work beside people who wait: what the highest class notices of it, and
//! what the lowest gets.

use seawall_load::trace::Row as TraceRow;
use seawall_model::Class;

use super::measure::{attained, first_tokens, quantile};
use super::overload::{self, UNIT, engine, met};
use super::replay::{Ask, Run, WINDOW_US, replay};
use super::rivals::Rival;
use super::rivals::bands::Bands;
use super::rivals::fcfs::Fcfs;
use super::rivals::fixed::Fixed;
use super::study::{Case, Column, Contender, Setting, Target};
use super::workload;

/// Load of the people.
const PEOPLE: f64 = 0.5;
/// Load of the batch work.
const BATCH: f64 = 1.5;
/// Calls in flight that rivals are tried at.
const CALLS: [u32; 4] = [100, 32, 48, 64];

/// FCFS, strict bands, and ours.
#[must_use]
pub fn contenders() -> Vec<Contender> {
    let fcfs = |calls: u32| {
        Setting::new(&format!("{calls} calls"), move |_| Rival::before_one(Fcfs::default(), Fixed(calls)))
    };
    let bands = |calls: u32| {
        Setting::new(&format!("{calls} calls"), move |_| Rival::before_one(Bands::default(), Fixed(calls)))
    };
    vec![
        Contender { name: "FCFS", ours: false, settings: CALLS.into_iter().map(fcfs).collect() },
        Contender { name: "strict bands", ours: false, settings: CALLS.into_iter().map(bands).collect() },
        Contender { name: "Seawall", ours: true, settings: overload::own() },
    ]
}

/// People, and with `batch` the batch work beside them, which has all the time in the world.
fn mixed(rows: &[TraceRow], seed: u64, part: f64, batch: bool) -> Vec<Ask> {
    let work = workload::replayed(rows, BATCH * UNIT, seed + 2, part);
    let end = work.last().map_or(0, |ask| ask.at_us);
    let mut asks = workload::replayed(rows, PEOPLE * UNIT, seed, part);
    asks.retain(|ask| ask.at_us <= end);
    asks.iter_mut().for_each(|ask| ask.patience_us = Some(overload::PATIENCE_US));
    if batch {
        let tenant = seawall_model::Tenant::parse("nightly").expect("letters");
        let of = |ask| Ask { class: Class::Batch, client: 1, tenant: tenant.clone(), ..ask };
        asks.extend(work.into_iter().map(of));
        asks.sort_by_key(|ask| (ask.at_us, ask.client));
    }
    asks
}

fn worth(asks: &[Ask], run: &Run) -> Vec<f64> {
    let person = |ask: &Ask| ask.class == Class::Interactive;
    let end = asks.iter().filter(|ask| person(ask)).map(|ask| ask.at_us).max().unwrap_or(0);
    let windows = (end / WINDOW_US) as usize;
    let served = |client: usize| run.service[client].iter().take(windows).sum::<u64>() as f64;
    let people = asks.iter().filter(|ask| person(ask)).count() as f64;
    let good = attained(asks, run, |ask, first, rest| person(ask) && met(ask, first, rest));
    let all = served(0) + served(1);
    vec![
        quantile(first_tokens(asks, run, person), 0.99),
        good * asks.len() as f64 / people.max(1.0),
        served(1) * 100.0 / all.max(1.0),
        all / (windows.max(1) as f64 * WINDOW_US as f64 / 1e6),
    ]
}

/// The case; `part` of the trace is played.
#[must_use]
pub fn case(rows: &[TraceRow], part: f64) -> Case {
    let alone = mixed(rows, 0, part, false);
    let run = replay(&alone, &[engine()], None, &mut Rival::before_one(Fcfs::default(), Fixed::NONE));
    let unloaded = quantile(first_tokens(&alone, &run, |_| true), 0.99);
    let rows = rows.to_vec();
    Case {
        name: "overload-flood",
        about: format!(
            "People at a load of {PEOPLE}, and beside them batch work at a load of {BATCH} that nobody waits for, \
             both from Azure's conversation trace. Alone the people's 99th percentile is {unloaded:.2} s. Figures \
             are of the time while people ask; batch work is guaranteed 5 % by default."
        ),
        asks: Box::new(move |seed| mixed(&rows, seed, part, true)),
        engines: vec![engine()],
        slow: None,
        columns: vec![
            Column { title: "people's p99 to first token, s", digits: 2 },
            Column { title: "people's goodput, %", digits: 1 },
            Column { title: "batch's part of service, %", digits: 1 },
            Column { title: "cost served per second", digits: 0 },
        ],
        measure: Box::new(worth),
        objective: (1, false),
        cost: 3,
        relative: None,
        floor: 0.0,
        targets: vec![
            Target { column: 0, at_most: true, bound: (unloaded * 130.0).round() / 100.0 },
            Target { column: 1, at_most: false, bound: 90.0 },
            Target { column: 2, at_most: false, bound: 5.0 },
        ],
    }
}
