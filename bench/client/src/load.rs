//! Closed and open loops of unary calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::flags::Flags;
use crate::http::Connection;
use crate::spread::Spread;

/// Open calls of an open loop; more is an answer by itself.
const OPEN_MAX: usize = 4_000;

/// What a loop saw.
#[derive(Debug, Default)]
struct Tally {
    served: u64,
    refused: u64,
    refused_without_retry_after: u64,
    broken: u64,
    /// Served before or after the span that counts.
    outside: u64,
    times: Spread,
    /// Without the time in the gateway's queue, as it says itself.
    unqueued: Spread,
}

impl Tally {
    fn join(&mut self, other: Self) {
        self.served += other.served;
        self.refused += other.refused;
        self.refused_without_retry_after += other.refused_without_retry_after;
        self.broken += other.broken;
        self.outside += other.outside;
        self.times.join(other.times);
        self.unqueued.join(other.unqueued);
    }

    fn report(self) -> Value {
        json!({
            "served": self.served, "refused": self.refused, "broken": self.broken, "outside": self.outside,
            "refused_without_retry_after": self.refused_without_retry_after,
            "times": self.times.report(), "unqueued": self.unqueued.report(),
        })
    }

    async fn call(&mut self, connection: &mut Option<Connection>, to: &str, request: &[u8]) {
        let began = Instant::now();
        let result = async {
            if connection.is_none() {
                *connection = Some(Connection::open(to).await?);
            }
            match connection {
                Some(open) => open.call(request).await,
                None => Err(std::io::ErrorKind::NotConnected.into()),
            }
        };
        match result.await {
            Ok(head) if head.status == 200 => {
                let us = began.elapsed().as_micros() as u64;
                self.served += 1;
                self.times.add(us);
                self.unqueued.add(us.saturating_sub(head.wait_ms * 1_000));
            }
            Ok(head) if matches!(head.status, 429 | 503) => {
                self.refused += 1;
                self.refused_without_retry_after += u64::from(!head.retry_after);
            }
            Ok(_) | Err(_) => {
                self.broken += 1;
                *connection = None;
            }
        }
    }
}

/// A closed loop's plan: requests in turn, and the span in which calls that end are counted.
#[derive(Clone)]
struct Loop {
    to: String,
    requests: Vec<Vec<u8>>,
    from: Instant,
    until: Instant,
    pause: Duration,
}

impl Loop {
    fn read(flags: &Flags) -> Result<Self, String> {
        let warm = Duration::from_millis(flags.number("warm-ms", 0)?);
        let from = Instant::now() + warm;
        let pause = Duration::from_millis(flags.number("pause-ms", 100)?);
        Ok(Self {
            to: flags.to()?,
            requests: Vec::new(),
            from,
            until: from + flags.seconds("secs", 10)?,
            pause,
        })
    }

    fn span(&self) -> f64 {
        (self.until - self.from).as_secs_f64()
    }

    async fn run(self, first: usize) -> Tally {
        let (mut counted, mut connection, mut turn) = (Tally::default(), None, first);
        while Instant::now() < self.until {
            let mut one = Tally::default();
            one.call(&mut connection, &self.to, &self.requests[turn % self.requests.len()]).await;
            turn += 1;
            let (refused, now) = (one.refused > 0, Instant::now());
            if now >= self.from && now < self.until {
                counted.join(one);
            } else {
                counted.outside += one.served;
            }
            if refused {
                tokio::time::sleep(self.pause).await;
            }
        }
        counted
    }
}

/// `--conns` connections that each send one call after the other.
pub(crate) async fn unary(flags: &Flags) -> Result<Value, String> {
    let mut plan = Loop::read(flags)?;
    plan.requests.push(flags.one_request(false));
    let span = plan.span();
    let running: Vec<_> =
        (0..flags.number("conns", 64)?).map(|_| tokio::spawn(plan.clone().run(0))).collect();
    let mut tally = Tally::default();
    for one in running {
        tally.join(one.await.map_err(|error| error.to_string())?);
    }
    let rate = tally.served as f64 / span;
    let mut report = tally.report();
    report["wall_s"] = json!(span);
    report["per_s"] = json!(rate);
    Ok(report)
}

/// `--n` calls at one moment on open connections; the time until the last has its answer.
pub(crate) async fn burst(flags: &Flags) -> Result<Value, String> {
    let (to, request) = (flags.to()?, flags.one_request(false));
    let mut connections = Vec::new();
    for _ in 0..flags.number("n", 50)? {
        connections.push(Connection::open(&to).await.map_err(|error| error.to_string())?);
    }
    let (mut walls, mut failed) = (Spread::default(), 0_u64);
    let rounds = flags.number("rounds", 20)?;
    for round in 0..=rounds {
        let began = Instant::now();
        let running: Vec<_> = connections
            .drain(..)
            .map(|mut connection| {
                let request = request.clone();
                tokio::spawn(async move {
                    let head = connection.call(&request).await;
                    (connection, head.is_ok_and(|head| head.status == 200))
                })
            })
            .collect();
        for one in running {
            let (connection, fine) = one.await.map_err(|error| error.to_string())?;
            failed += u64::from(!fine);
            connections.push(connection);
        }
        // The first round opens the connections to the engine.
        if round > 0 {
            walls.add(began.elapsed().as_micros() as u64);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(json!({"rounds": rounds, "failed": failed, "wall": walls.report()}))
}

/// Calls at a fixed rate whether or not the earlier ones are answered.
pub(crate) async fn open(flags: &Flags) -> Result<Value, String> {
    let (to, request) = (flags.to()?, Arc::new(flags.one_request(false)));
    let (rate, span) = (flags.number("rate", 500)?.max(1), flags.seconds("secs", 10)?);
    let places = Arc::new(Semaphore::new(OPEN_MAX));
    let idle: Arc<std::sync::Mutex<Vec<Connection>>> = Arc::default();
    let unsent = AtomicU64::new(0);
    let began = Instant::now();
    let mut running = Vec::new();
    let mut pulse = tokio::time::interval(Duration::from_secs_f64(1.0 / rate as f64));
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    while began.elapsed() < span {
        pulse.tick().await;
        let Ok(place) = places.clone().try_acquire_owned() else {
            unsent.fetch_add(1, Relaxed);
            continue;
        };
        let (to, request, idle) = (to.clone(), request.clone(), idle.clone());
        running.push(tokio::spawn(async move {
            let mut tally = Tally::default();
            let mut connection = idle.lock().ok().and_then(|mut idle| idle.pop());
            let limit = Duration::from_secs(60);
            if tokio::time::timeout(limit, tally.call(&mut connection, &to, &request)).await.is_err() {
                tally.broken += 1;
                connection = None;
            }
            if let (Some(connection), Ok(mut idle)) = (connection, idle.lock()) {
                idle.push(connection);
            }
            drop(place);
            tally
        }));
    }
    let offered = running.len();
    let mut tally = Tally::default();
    for one in running {
        tally.join(one.await.map_err(|error| error.to_string())?);
    }
    let mut report = tally.report();
    report["offered"] = json!(offered);
    report["unsent"] = json!(unsent.into_inner());
    report["wall_s"] = json!(began.elapsed().as_secs_f64());
    Ok(report)
}

/// One closed loop a tenant: line n of `--keys` with the nth of `--conns` connections (the
/// last number counts for all further tenants). With `--models N` calls go in turn to the
/// model's name followed by 0 to N-1: calls of different lengths do not fall into step.
pub(crate) async fn tenants(flags: &Flags) -> Result<Value, String> {
    let plan = Loop::read(flags)?;
    let file = flags.text("keys", "");
    let keys = std::fs::read_to_string(&file).map_err(|error| format!("--keys {file}: {error}"))?;
    let conns: Vec<u64> = flags
        .text("conns", "3")
        .split(',')
        .map(|text| text.parse().map_err(|_| "--conns takes numbers with commas".to_owned()))
        .collect::<Result<_, String>>()?;
    let (model, models) = (flags.text("model", "sim-small"), flags.number("models", 0)?);
    let names: Vec<String> =
        if models == 0 { vec![model] } else { (0..models).map(|n| format!("{model}{n}")).collect() };
    let span = plan.span();
    let mut running = Vec::new();
    for (number, key) in keys.lines().filter(|key| !key.is_empty()).enumerate() {
        let requests: Vec<_> = names.iter().map(|name| flags.request(name, false, key)).collect();
        for conn in 0..conns[number.min(conns.len() - 1)] {
            let plan = Loop { requests: requests.clone(), ..plan.clone() };
            running.push((number, tokio::spawn(plan.run(number + conn as usize * 3))));
        }
    }
    let mut tallies: Vec<Tally> = Vec::new();
    for (number, one) in running {
        let tally = one.await.map_err(|error| error.to_string())?;
        if tallies.len() <= number {
            tallies.resize_with(number + 1, Tally::default);
        }
        tallies[number].join(tally);
    }
    let reports: Vec<Value> = tallies.into_iter().map(Tally::report).collect();
    Ok(json!({"tenants": reports, "wall_s": span}))
}
