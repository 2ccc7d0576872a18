//! How a run goes, while it does: one line that changes on a terminal, a line every interval elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use beast::load::{Progress, Tally};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows progress on standard error.
pub(super) struct Show {
    how: How,
    rate: f64,
}

enum How {
    Not,
    Bar(ProgressBar),
    Lines { next: Option<Instant> },
}

/// Least time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// How finely a bar moves.
const BAR_LEN: u64 = 1_000;

impl Show {
    pub(super) fn new(quiet: bool) -> Self {
        let how = if quiet {
            How::Not
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(BAR_LEN), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:24}] {msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            How::Bar(bar)
        } else {
            How::Lines { next: None }
        };
        Self { how, rate: 0.0 }
    }

    pub(super) fn look(&mut self, progress: &Progress<'_>) {
        if let Some(interval) = progress.interval {
            self.rate = interval.rate_per_s();
        }
        let rate = self.rate;
        match &mut self.how {
            How::Not => {}
            How::Bar(bar) => {
                let left = progress.left.unwrap_or_default().as_secs_f64();
                let elapsed = progress.elapsed.as_secs_f64();
                let part = if elapsed + left > 0.0 { elapsed / (elapsed + left) } else { 0.0 };
                bar.set_prefix(progress.stage.to_owned());
                bar.set_position((part * BAR_LEN as f64) as u64);
                bar.set_message(line(progress, rate));
            }
            How::Lines { next } => {
                let now = Instant::now();
                if progress.interval.is_some() && next.is_none_or(|next| now >= next) {
                    // A little less, so that intervals of a second are all shown.
                    *next = Some(now + LINE_EVERY * 9 / 10);
                    // A closed standard error is no reason to stop measuring.
                    let _closed =
                        writeln!(std::io::stderr(), "{:<14} {}", progress.stage, line(progress, rate));
                }
            }
        }
    }

    pub(super) fn end(&mut self) {
        if let How::Bar(bar) = &self.how {
            bar.finish_and_clear();
        }
    }
}

fn line(progress: &Progress<'_>, rate_per_s: f64) -> String {
    let Tally { sent, matched, latency_ns, .. } = progress.so_far;
    let ms = |quantile| latency_ns.value_at_quantile(quantile) as f64 / 1e6;
    let lost = progress.so_far.lost();
    let refused = progress.so_far.refused();
    let left = progress.left.map_or("unknown".to_owned(), |left| format!("{:.0} s", left.as_secs_f64()));
    format!(
        "{:.0} s, left {left}: {rate_per_s:.0}/s; sent {sent}, answered {matched}, refused {refused}, lost {lost}; \
         p50 {:.3} ms, p99 {:.3} ms",
        progress.elapsed.as_secs_f64(),
        ms(0.5),
        ms(0.99)
    )
}
