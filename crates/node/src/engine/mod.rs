//! The simulated engine: a server that behaves like a real model server, so that
//! Seawall works without one, and the opponent in every test. It puts the pure model of
//! `seawall-load` under the real clock and answers in the shapes of OpenAI and Anthropic.
//!
//! Beside inference it serves `/health`, `/metrics` (vLLM's names), and a control and
//! observation API under `/sim/`. What one request does can be steered by `x-sim-*`
//! headers or a suffix of the model name: the table is in `control`.

mod call;
mod chat;
mod completions;
mod control;
mod embeddings;
mod flow;
mod json;
mod ledger;
mod messages;
mod metrics;
mod other;
mod responses;
mod route;
mod settings;
mod speech;
#[cfg(test)]
mod tests;
mod wish;
mod world;

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use seawall_model::limits;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::tasks::{Kind, Tasks};

use settings::Settings;
pub use settings::{Error, Options};
use world::{Signal, World};

/// How long open answers may take after the shutdown before they are cut.
const GRACE: Duration = Duration::from_secs(5);

/// Serves on `listener` until `shutdown` resolves, then lets open answers finish for a
/// short grace time and cuts the rest.
///
/// # Errors
/// When the options are wrong; nothing is served then.
pub async fn serve(
    listener: TcpListener,
    options: Options,
    tasks: Tasks,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let world = Arc::new(World::new(Settings::check(options)?));
    let driver = tasks.spawn(Kind::SimEngine, world.clone().drive());
    let seats = Arc::new(Semaphore::new(limits::SIM_CONNECTIONS_MAX));
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, most likely: those in use must come back first.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        // A crashed engine's port answers nobody; one seat too many is turned away alike.
        let Ok(seat) = seats.clone().try_acquire_owned() else {
            continue;
        };
        if world.is_down() {
            continue;
        }
        let (world, signal, own) = (world.clone(), world.signal(), tasks.clone());
        tasks.spawn(Kind::SimEngine, async move {
            connection(world, stream, signal, own).await;
            drop(seat);
        });
    }
    drop(listener);
    world.drain();
    let everyone = u32::try_from(limits::SIM_CONNECTIONS_MAX).unwrap_or(u32::MAX);
    if tokio::time::timeout(GRACE, seats.acquire_many(everyone)).await.is_err() {
        world.cut();
    }
    driver.abort();
    Ok(())
}

/// Serves one connection until it ends, the engine crashes, or the drain is over.
async fn connection(world: Arc<World>, stream: TcpStream, mut signal: watch::Receiver<Signal>, tasks: Tasks) {
    // Without it each token would wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request| {
        let world = world.clone();
        async move { Ok::<_, Infallible>(route::answer_any(world, request).await) }
    });
    let mut builder = auto::Builder::new(tasks.executor(Kind::SimEngine));
    // Idle upstream connections are kept by the gateway and must not be closed by a
    // timer here; buffers are one window, so that a slow reader stops the stream. Pieces
    // are small: one copy and a plain write cost a third less than gathering.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(limits::STREAM_WINDOW_BYTES)
        .writev(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_send_buf_size(limits::STREAM_WINDOW_BYTES)
        .max_concurrent_streams(u32::try_from(limits::SIM_CONNECTIONS_MAX).ok());
    let born = signal.borrow_and_update().epoch;
    let mut serving = Box::pin(builder.serve_connection(TokioIo::new(stream), service));
    loop {
        tokio::select! {
            // An error is a client that left or spoke no HTTP: it knows.
            _ = serving.as_mut() => return,
            changed = signal.changed() => {
                let now = *signal.borrow_and_update();
                if changed.is_err() || now.epoch != born {
                    return;
                }
                if now.draining {
                    serving.as_mut().graceful_shutdown();
                }
            }
        }
    }
}
