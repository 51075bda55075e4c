//! Ctrl-C: the first one lets long work stop at a good place, the second one ends the process.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Once, OnceLock, mpsc};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use crate::exit::Interrupted;
use crate::output;

static REQUESTED: AtomicBool = AtomicBool::new(false);
static INSTALL: Once = Once::new();
/// A pipe that gets a byte when the user asks to stop: its reading end ends a wait for input.
static WAKE: OnceLock<(UnixStream, UnixStream)> = OnceLock::new();

/// From here on SIGINT, SIGTERM and SIGHUP set a flag that [`check`] looks at. Commands that clean up after
/// themselves call this; the others just die, which no store minds.
pub fn install() {
    INSTALL.call_once(|| {
        if let Ok(pair) = UnixStream::pair() {
            let _ = WAKE.set(pair);
        }
        let installed = ctrlc::set_handler(|| {
            if REQUESTED.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            if let Some((sender, _)) = WAKE.get() {
                let _ = (&*sender).write_all(&[0]);
            }
        });
        if let Err(error) = installed {
            output::note(format_args!("tophash: cannot catch Ctrl-C ({error}); it will end the command at once"));
        }
    });
}

/// True once the user asked to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// An error once the user asked to stop, for loops that have nothing to say about how far they got.
pub fn check() -> Result<(), Interrupted> {
    if requested() { Err(Interrupted(String::new())) } else { Ok(()) }
}

/// An input whose reads end when the user asks to stop, however long nothing comes: a read alone goes on after a signal.
pub struct Input<R>(pub R);

impl<R: Read + AsFd> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some((_, receiver)) = WAKE.get() {
            let mut ends = [PollFd::new(&self.0, PollFlags::IN), PollFd::new(receiver, PollFlags::IN)];
            // Files that cannot be waited for are always ready.
            while let Err(error) = poll(&mut ends, None) {
                if error != rustix::io::Errno::INTR {
                    return Err(error.into());
                }
            }
        }
        if requested() {
            // Not of the kind Interrupted, which readers take for a reason to try again.
            return Err(io::Error::other("interrupted"));
        }
        self.0.read(buffer)
    }
}

/// Opens a file. Opening a named pipe waits for a writer; that wait ends when the user asks to stop.
pub fn open_file(path: &Path) -> io::Result<File> {
    if !path.metadata()?.file_type().is_fifo() {
        return File::open(path);
    }
    let (sender, receiver) = mpsc::channel();
    let path = path.to_path_buf();
    std::thread::spawn(move || sender.send(File::open(path)));
    loop {
        match receiver.recv_timeout(Duration::from_millis(50)) {
            Ok(opened) => return opened,
            Err(_) if requested() => return Err(io::Error::other("interrupted")),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(io::Error::other("the thread that opens it ended"));
            }
        }
    }
}
