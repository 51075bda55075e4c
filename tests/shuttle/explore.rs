//! Which schedules are run, and what is told about them.
//!
//! Every schedule has a number, and base seed and number decide everything in it. Half of them are random
//! walks: at each point the running task goes on, or with a probability that is chosen per schedule, from "at
//! once" to "hardly ever", another one does. The other half are chosen by priority (PCT; Burckhardt and others,
//! ASPLOS 2010): the task of the highest priority runs until, at one of a few points chosen beforehand, it
//! becomes the lowest. Those find the faults that need one task to sleep through much of what others do.
//!
//! Each 20th schedule is run twice, and must take the same course: else no failure could be repeated.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

use crate::common::{self, Random};

/// Points after which a schedule is taken for one that does not end.
const STEPS_MAX: usize = 400_000;
/// One schedule of so many is run twice.
const TWICE: u64 = 20;

/// What all schedules of one scenario came to.
#[derive(Debug, Default)]
pub struct Explored {
    pub schedules: u64,
    pub repeated: u64,
    /// Points at which more than one task could go on.
    pub choices: u64,
    /// Points at which the task was exchanged.
    pub changes: u64,
}

/// Runs a body under `schedules` schedules.
///
/// # Panics
/// If the body does under one of them. Its number is printed: `TOPHASH_TEST_SEED` and `TOPHASH_TEST_SCHEDULE`
/// repeat it.
pub fn explore(name: &str, schedules: u64, body: impl Fn() + Send + Sync + 'static) -> Explored {
    let seed = common::seed(name);
    let only = std::env::var("TOPHASH_TEST_SCHEDULE").ok().and_then(|text| text.parse().ok());
    let explored = Rc::new(RefCell::new(Explored::default()));
    let explorer = Explorer {
        name: name.to_string(),
        seed,
        runs: Runs { only, schedules, next: 0, again: false },
        current: None,
        // A first guess; schedule 0 tells.
        steps: 1000,
        course: HashMap::new(),
        explored: Rc::clone(&explored),
    };
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 20;
    config.silence_warnings = true;
    config.failure_persistence = shuttle::FailurePersistence::None;
    config.max_steps = shuttle::MaxSteps::FailAfter(STEPS_MAX);
    shuttle::Runner::new(explorer, config).run(body);
    Rc::try_unwrap(explored).expect("the runner is gone").into_inner()
}

/// The order in which numbers come.
struct Runs {
    only: Option<u64>,
    schedules: u64,
    next: u64,
    /// The last one is to be run again.
    again: bool,
}

impl Iterator for Runs {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if std::mem::take(&mut self.again) {
            return Some(self.next - 1);
        }
        // Schedule 0 comes in any case: it tells how long schedules are.
        if let Some(only) = self.only.filter(|_| self.next > 0) {
            self.next = self.next.max(only);
        }
        let end = self.only.map_or(self.schedules, |only| only + 1);
        (self.next < end).then(|| {
            self.again = self.next % TWICE == TWICE / 2 && self.only.is_none();
            self.next += 1;
            self.next - 1
        })
    }
}

/// How a schedule chooses.
enum Way {
    /// Another task goes on one time in so many.
    Walk { one_in: u64 },
    /// The task of the highest priority goes on, and becomes the lowest at some points.
    Priorities { change_at: Vec<u64>, lowest: i64, of: Vec<i64> },
}

struct Current {
    number: u64,
    way: Way,
    random: Random,
    /// Numbers for the tasks, apart from those for the choices.
    data: Random,
    choices: u64,
    changes: u64,
    /// A digest of every choice there was and how it was made.
    course: u64,
}

struct Explorer {
    name: String,
    seed: u64,
    runs: Runs,
    current: Option<Current>,
    /// Choices in schedule 0.
    steps: u64,
    /// The course of the last schedule, if it is run twice.
    course: HashMap<u64, u64>,
    explored: Rc<RefCell<Explored>>,
}

impl Explorer {
    fn finish(&mut self) {
        let Some(done) = self.current.take() else { return };
        let mut explored = self.explored.borrow_mut();
        explored.choices += done.choices;
        explored.changes += done.changes;
        if done.number == 0 {
            self.steps = done.choices.max(10);
        }
        if let Some(first) = self.course.insert(done.number, done.course) {
            explored.repeated += 1;
            assert_eq!(first, done.course, "{}: schedule {} took another course when repeated", self.name, done.number);
        } else {
            explored.schedules += 1;
        }
    }

    fn way(&self, number: u64, random: &mut Random) -> Way {
        if number.is_multiple_of(2) {
            return Way::Walk { one_in: [1, 4, 16, 64, 256][random.below(5) as usize] };
        }
        let depth = 1 + random.below(4);
        // Now and then beyond the end, so that shorter depths come as well.
        let change_at = (0..depth).map(|_| random.below(self.steps * 5 / 4)).collect();
        Way::Priorities { change_at, lowest: 0, of: Vec::new() }
    }
}

impl Drop for Explorer {
    fn drop(&mut self) {
        if let Some(current) = self.current.as_ref().filter(|_| std::thread::panicking()) {
            eprintln!(
                "{}: schedule {} failed. To repeat it: TOPHASH_TEST_SEED={} TOPHASH_TEST_SCHEDULE={}",
                self.name, current.number, self.seed, current.number
            );
        }
    }
}

impl Scheduler for Explorer {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.finish();
        let number = self.runs.next()?;
        if std::env::var_os("TOPHASH_TEST_VERBOSE").is_some() {
            // For a process that dies without a word.
            eprintln!("{}: schedule {number}", self.name);
        }
        let mut random = Random(self.seed ^ number.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        let way = self.way(number, &mut random);
        let data = Random(random.next());
        self.current = Some(Current { number, way, random, data, choices: 0, changes: 0, course: 0 });
        Some(Schedule::new(number))
    }

    fn next_task(&mut self, runnable: &[&Task], running: Option<TaskId>, is_yielding: bool) -> Option<TaskId> {
        let current = self.current.as_mut().expect("a schedule");
        if let [only] = runnable {
            return Some(only.id());
        }
        let chosen = current.choose(runnable, running, is_yielding);
        current.changes += u64::from(running != Some(chosen));
        current.choices += 1;
        let seen = (runnable.len() as u64) << 32 | (usize::from(chosen) as u64) << 1 | u64::from(is_yielding);
        current.course = Random(current.course ^ seen).next();
        Some(chosen)
    }

    fn next_u64(&mut self) -> u64 {
        self.current.as_mut().expect("a schedule").data.next()
    }
}

impl Current {
    fn choose(&mut self, runnable: &[&Task], running: Option<TaskId>, is_yielding: bool) -> TaskId {
        let (choices, random) = (self.choices, &mut self.random);
        match &mut self.way {
            Way::Walk { one_in } => {
                let stays = |task: &&&Task| Some(task.id()) == running;
                if let Some(task) = runnable.iter().find(stays).filter(|_| !is_yielding && !random.chance(1, *one_in)) {
                    return task.id();
                }
                let others: Vec<TaskId> =
                    runnable.iter().map(|task| task.id()).filter(|&id| !is_yielding || Some(id) != running).collect();
                others[random.below(others.len() as u64) as usize]
            }
            Way::Priorities { change_at, lowest, of } => {
                let last = runnable.iter().map(|task| usize::from(task.id())).max().expect("a task");
                while of.len() <= last {
                    of.push(1 + random.below(1 << 40) as i64);
                }
                if let Some(running) = running.filter(|_| is_yielding || change_at.contains(&choices)) {
                    *lowest -= 1;
                    of[usize::from(running)] = *lowest;
                }
                let highest = runnable.iter().max_by_key(|task| of[usize::from(task.id())]);
                highest.expect("a task").id()
            }
        }
    }
}
