//! A worker seen from outside.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;

use crate::engine::EngineName;
use crate::interrupt;
use crate::protocol::{Answer, Request};

/// How often a wait looks whether the user wants to stop.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A process of its own for one engine. Killed when dropped.
pub struct Worker {
    engine: EngineName,
    timeout: Duration,
    child: Child,
    requests: Option<ChildStdin>,
    /// Lines of its stdout.
    answers: Receiver<String>,
}

impl Worker {
    /// Starts a process. An answer that takes longer than the timeout counts as a hang.
    pub fn start(engine: EngineName, timeout: Duration) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe().context("this program cannot find itself")?)
            .args(["--worker", engine.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a process")?;
        let requests = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().context("the process has no stdout")?).lines();
        let (sender, answers) = mpsc::channel();
        // Ends with the process's stdout, or when nobody listens any more.
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Worker { engine, timeout, child, requests, answers })
    }

    /// Asks, and waits for the answer.
    pub fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> anyhow::Result<T> {
        self.ask_untyped(request).with_context(|| format!("{}: {request:?}", self.engine)).and_then(|value| {
            serde_json::from_value(value).with_context(|| format!("an unexpected answer to {request:?}"))
        })
    }

    fn ask_untyped(&mut self, request: &Request) -> anyhow::Result<serde_json::Value> {
        interrupt::check()?;
        self.tell(request)?;
        let answer = self.answer()?;
        serde_json::from_str::<Answer>(&answer)?.map_err(anyhow::Error::msg)
    }

    fn answer(&mut self) -> anyhow::Result<String> {
        let asked = Instant::now();
        loop {
            let received = self.answers.recv_timeout(LOOK_EVERY);
            interrupt::check()?;
            match received {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the process ended without an answer ({})", self.child.wait()?)
                }
                Err(RecvTimeoutError::Timeout) if asked.elapsed() > self.timeout => {
                    bail!("no answer within {} s: it seems to hang", self.timeout.as_secs_f64())
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Asks, and does not wait.
    pub fn tell(&mut self, request: &Request) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        let requests = self.requests.as_mut().context("the process is to end")?;
        requests.write_all(line.as_bytes()).context("the process has ended")
    }

    /// Fails if the process has said something, or ended, after it was told something that has no answer.
    pub fn check_silence(&mut self) -> anyhow::Result<()> {
        match self.answers.try_recv() {
            Err(TryRecvError::Empty) => Ok(()),
            Err(TryRecvError::Disconnected) => bail!("{}: the process ended by itself", self.engine),
            Ok(answer) => {
                serde_json::from_str::<Answer>(&answer)?.map_err(anyhow::Error::msg)?;
                bail!("{}: an unexpected answer: {answer}", self.engine)
            }
        }
    }

    /// Closes the engine and ends the process; returns how many seconds closing took.
    pub fn close(mut self) -> anyhow::Result<f64> {
        let seconds = self.ask(&Request::Close)?;
        self.requests = None;
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "{}: the process ended with {status}", self.engine);
        Ok(seconds)
    }

    /// kill -9.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
