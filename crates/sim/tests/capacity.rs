//! The comparison of the kernel with its rivals: small versions of its studies, fast enough
//! for every push. First of all: the same seed gives the same bytes.

use seawall_load::engine::Spec;
use seawall_load::trace::Row;
use seawall_model::Tokens;
use seawall_sim::capacity::replay::{Ask, Gateway, Run, replay};
use seawall_sim::capacity::rivals::fcfs::Fcfs;
use seawall_sim::capacity::rivals::fixed::Fixed;
use seawall_sim::capacity::rivals::in_engine::InEngine;
use seawall_sim::capacity::rivals::vtc::Vtc;
use seawall_sim::capacity::rivals::{Order, Rival};
use seawall_sim::capacity::seawall::{Seawall, Setting};
use seawall_sim::capacity::{Traces, Wish, compare, fair, measure, overload, play, route, workload};

fn seawall() -> Seawall {
    Seawall::new(&Setting { replicas: 1, output_max: Some(1_024), ..Setting::default() })
}

fn on_one(asks: &[Ask], gateway: &mut dyn Gateway) -> Run {
    replay(asks, &[fair::engine()], None, gateway)
}

fn straight(order: impl Order + 'static) -> Rival {
    Rival::before_one(order, Fixed::NONE)
}

/// Twelve seconds of traffic with shared prefixes.
fn rows() -> Vec<Row> {
    let row = |nth: u64| Row {
        at_us: nth * 200_000,
        client: 0,
        input: Tokens(600 + nth * 37 % 1_500),
        output: Tokens(20 + nth * 13 % 60),
        prefix: [nth % 7, 100 + nth % 21].into(),
    };
    (0..60).map(row).collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let studies = || {
        let mut text = String::new();
        let (arena, _) = fair::cases(&[]).swap_remove(2);
        let mut case = arena;
        case.asks = Box::new(|seed| workload::even(&[0.2, 0.4], seed));
        text.push_str(&compare(&case, &fair::contenders(&[]), 1).table);
        for case in overload::cases(&rows(), 1.0).into_iter().take(1) {
            let found = compare(&case, &overload::contenders(), 1);
            text.push_str(&(found.table + &found.plot));
        }
        let (case, blocks) = route::cases(&rows(), 1.0).swap_remove(0);
        text.push_str(&compare(&case, &route::contenders(blocks), 1).table);
        text
    };
    let first = studies();
    assert!(first.contains("| **Seawall** | nothing set |"), "{first}");
    assert!(first == studies(), "two runs, two reports");
}

#[test]
fn another_seed_gives_another_trace() {
    assert_ne!(workload::burst(1).len(), 0);
    let times = |seed| workload::burst(seed).iter().map(|ask| ask.at_us).collect::<Vec<_>>();
    assert_eq!(times(1), times(1));
    assert_ne!(times(1), times(2));
}

#[test]
fn everybody_serves_every_call_once_and_whole() {
    let asks: Vec<Ask> = workload::burst(3).into_iter().filter(|ask| ask.at_us < 30_000_000).collect();
    let mut contenders: Vec<Box<dyn Gateway>> = vec![Box::new(seawall())];
    for contender in fair::contenders(&[]) {
        contenders.extend(contender.settings.iter().map(|setting| (setting.make)(3)));
    }
    let cost: u64 = asks.iter().map(Ask::cost).sum();
    for gateway in &mut contenders {
        let run = on_one(&asks, gateway.as_mut());
        for (ask, outcome) in asks.iter().zip(&run.outcomes) {
            assert!(outcome.tokens == ask.output && !outcome.dropped && outcome.done_us.is_some());
            assert!(outcome.sent_us >= Some(ask.at_us) && outcome.first_us > outcome.sent_us);
        }
        assert_eq!(run.service.iter().flatten().sum::<u64>(), cost, "what is served is what was asked for");
    }
}

#[test]
fn the_engine_is_the_card_that_vtc_was_measured_on() {
    // Measured on two clients (fair_bench/FCFS and VTC, all_results_overload.jsonl): FCFS 876
    // tokens a second and a mean gap of 439, VTC 893 and 104.
    let asks = workload::even(&[1.5, 3.0], 0);
    let fcfs = on_one(&asks, &mut straight(Fcfs::default()));
    let vtc = on_one(&asks, &mut Rival::before_one(Vtc::default(), InEngine::default()));
    let rate = measure::tokens_per_s(&asks, &fcfs);
    assert!((rate / 876.0 - 1.0).abs() < 0.05, "FCFS makes {rate} tokens a second");
    let (gap, _) = (measure::vtc_gap(&asks, &fcfs).1, 0);
    assert!((gap / 439.0 - 1.0).abs() < 0.1, "FCFS has a gap of {gap}");
    let gap = measure::vtc_gap(&asks, &vtc).1;
    assert!((80.0..150.0).contains(&gap), "VTC has a gap of {gap}");
}

#[test]
fn the_kernel_is_fairer_than_the_queue_of_the_engine() {
    let asks = workload::even(&[1.5, 3.0], 1);
    let (fcfs, own) = (on_one(&asks, &mut straight(Fcfs::default())), on_one(&asks, &mut seawall()));
    let (bad, good) = (measure::vtc_gap(&asks, &fcfs).1, measure::vtc_gap(&asks, &own).1);
    assert!(good * 5.0 < bad, "a mean gap of {good} beside {bad}");
}

#[test]
fn a_slow_stretch_is_slow_and_ends() {
    let asks = workload::even(&[0.5], 0);
    let engines = [Spec { slots: 1, ..fair::engine() }];
    let mut slow = overload::cases(&rows(), 1.0).pop().and_then(|case| case.slow).expect("the slow case");
    (slow.from_us, slow.until_us) = (100_000_000, 200_000_000);
    let even = replay(&asks, &engines, None, &mut straight(Fcfs::default()));
    let late = replay(&asks, &engines, Some(slow), &mut straight(Fcfs::default()));
    let lost = late.end_us - even.end_us;
    assert!((40_000_000..60_000_000).contains(&lost), "half of 100 s at half speed: {lost}");
}

#[test]
fn traces_are_read_and_a_wrong_line_is_named() {
    let mut traces = Traces::default();
    assert!(traces.take("fair", "h\n0.1,1,2,3\n").is_ok());
    assert!(traces.take("overload", "h\nnothing\n").is_err_and(|error| error.to_string().contains("line 2")));
    let wish = Wish::read(["fair".to_owned(), "--quick".to_owned()]).expect("valid");
    assert!(wish.wants("fair") && !wish.wants("route"));
    let mut names = Vec::new();
    let none = Wish { studies: Vec::new(), ..wish };
    play(&none, &traces, &mut |found| names.push(found.name));
    assert!(names.is_empty(), "nothing was wished for");
}
