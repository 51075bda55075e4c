//! What both services share: a session, its identifier, and what a request can come to other than well.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// A session lives this long after it was created or renewed.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What a client sends to create one.
#[derive(Debug, Deserialize)]
pub struct New {
    /// Whose session it is to be.
    pub user: String,
}

/// A session as it is stored, and as clients see it: JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its key.
    pub id: String,
    /// Whose session it is.
    pub user: String,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: u64,
}

impl Session {
    /// A new session of a user.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn create(new: New) -> Result<Self, Failure> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| Failure::Internal(error.to_string()))?;
        let id = id.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Session { id, user: new.user, expires_ms: now_ms() + LIFETIME.as_millis() as u64 })
    }

    /// Reads a stored session.
    ///
    /// # Errors
    /// Its time is over, or the store holds something else under its key.
    pub fn read(stored: &[u8]) -> Result<Self, Failure> {
        let session: Session = serde_json::from_slice(stored).map_err(|error| Failure::Internal(error.to_string()))?;
        if session.expires_ms > now_ms() { Ok(session) } else { Err(Failure::NotFound) }
    }

    /// The same session with its whole life before it.
    #[must_use]
    pub fn renewed(self) -> Self {
        // Renewed twice in a millisecond, it differs all the same.
        let expires_ms = (now_ms() + LIFETIME.as_millis() as u64).max(self.expires_ms + 1);
        Session { expires_ms, ..self }
    }

    /// The bytes that are stored and sent.
    ///
    /// # Errors
    /// None that a session can cause.
    pub fn to_json(&self) -> Result<Vec<u8>, Failure> {
        serde_json::to_vec(self).map_err(|error| Failure::Internal(error.to_string()))
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64)
}

/// A response with JSON that is there already.
pub fn json(status: StatusCode, body: impl Into<axum::body::Body>) -> Response {
    (status, [("content-type", "application/json")], body.into()).into_response()
}

/// Why a request was not carried out.
#[derive(Debug)]
pub enum Failure {
    /// No such session, or its time is over.
    NotFound,
    /// Another request has changed the session meanwhile.
    Conflict,
    /// The store said so. Its text names the place and the next step, and is for the log, not for clients.
    Store(tophash::Error),
    /// Something else went wrong here.
    Internal(String),
}

impl From<tophash::Error> for Failure {
    fn from(error: tophash::Error) -> Self {
        Failure::Store(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, cause) = match self {
            Failure::NotFound => return StatusCode::NOT_FOUND.into_response(),
            Failure::Conflict => return StatusCode::CONFLICT.into_response(),
            Failure::Store(error @ tophash::Error::DiskFull { .. }) => {
                (StatusCode::INSUFFICIENT_STORAGE, error.to_string())
            }
            Failure::Store(error @ (tophash::Error::Poisoned { .. } | tophash::Error::Closed { .. })) => {
                (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
            Failure::Store(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            Failure::Internal(cause) => (StatusCode::INTERNAL_SERVER_ERROR, cause),
        };
        eprintln!("{status}: {cause}");
        status.into_response()
    }
}
