//! The body of an engine's answer as it comes. Read to its end, the connection goes back
//! to the pool; dropped before, it is closed, which is how an engine learns that nobody
//! waits any more (I8).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use seawall_wire::http1::{self, Piece};

use super::Failed;
use super::exchange::Outgoing;
use super::pool::{Connection, Place, Pool};

/// An answer's body.
#[derive(Debug)]
pub struct Coming {
    // Dropped first of all: it closes the socket.
    connection: Option<Box<Connection>>,
    body: http1::Body,
    home: Option<(Arc<Pool>, Place)>,
    /// What is still to be sent: some engines begin to answer while they listen.
    rest: Option<Box<Outgoing>>,
}

impl Coming {
    pub(super) fn new(
        connection: Box<Connection>,
        body: http1::Body,
        home: Option<(Arc<Pool>, Place)>,
        rest: Option<Box<Outgoing>>,
    ) -> Self {
        let mut coming = Self { connection: Some(connection), body, home, rest };
        coming.release();
        coming
    }

    /// Once the body is whole, another call may have the connection.
    fn release(&mut self) {
        if !self.body.done() {
            return;
        }
        let (connection, home) = (self.connection.take(), self.home.take());
        // With a request half sent the connection is good for no other.
        if let (Some(connection), Some((pool, place)), None) = (connection, home, self.rest.take()) {
            pool.put(place, connection);
        }
    }

    /// Sends what can be sent of the rest of the request.
    fn send(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let (Some(connection), Some(rest)) = (self.connection.as_mut(), self.rest.as_mut()) else {
            return Ok(());
        };
        match rest.poll_send(connection, cx) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(failed @ Failed::Upload(_))) => return Err(io::Error::other(failed)),
            // It may still say all that it has to say.
            Poll::Ready(Err(_)) => self.home = None,
        }
        self.rest = None;
        Ok(())
    }
}

impl Body for Coming {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let coming = self.get_mut();
        if let Err(why) = coming.send(cx) {
            coming.connection = None;
            return Poll::Ready(Some(Err(why)));
        }
        loop {
            let Some(connection) = coming.connection.as_mut() else {
                return Poll::Ready(None);
            };
            let piece = match coming.body.next(&mut connection.read) {
                Ok(piece) => piece,
                Err(why) => {
                    coming.connection = None;
                    return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::InvalidData, why))));
                }
            };
            match piece {
                Piece::Bytes(bytes) => {
                    coming.release();
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Piece::End => {
                    coming.release();
                    return Poll::Ready(None);
                }
                Piece::More => {}
            }
            let received = std::task::ready!(connection.poll_receive(cx));
            let ended = match received {
                Ok(0) => {
                    coming.body.closed().map_err(|why| io::Error::new(io::ErrorKind::UnexpectedEof, why))
                }
                Ok(_) => continue,
                Err(why) => Err(why),
            };
            coming.connection = None;
            return Poll::Ready(ended.err().map(Err));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.connection.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
