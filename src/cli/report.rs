//! `beast report`: the reports of ports 9090 and 2680 at the terminal, read from the data folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use beast::appliance::{feed_setup, keep_exports};
use beast::config::Config;
use beast::report::{ExportError, ExportForm, Format, Refusal, Reports, Scope, Which, export};
use beast::store::Store;
use beast::time::{Clock as _, Now, RealClock, calendar};
use clap::{Args, Subcommand};

use super::{Failure, Outcome, SettingsArgs, print};

/// Arguments of `beast report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    #[command(subcommand)]
    command: ReportCommand,
}

#[derive(Debug, Subcommand)]
enum ReportCommand {
    /// Requests by second, key, asset, exchange, transport and status
    Usage(PageArgs),
    /// Single requests, from the journal
    Detail(PageArgs),
    /// Requests added up by columns of your choice
    UsageSummary(PageArgs),
    /// All of a period on one page
    Summary(PageArgs),
    /// Whether the books close: journal, what was drained, and what it adds up to
    Reconcile(PageArgs),
    /// Write the usage of a period into a file
    Export(ExportArgs),
}

/// The period and the filters. What their values may be is said when they are not.
#[derive(Debug, Args)]
struct FilterArgs {
    /// Begin of the period: a date or time in UTC, or how long ago (90s, 15m, 24h, 7d)
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// End of the period, likewise; does not belong to it
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only this key, as `beast keys list` shows it
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Only this asset
    #[arg(long, value_name = "SYMBOL")]
    asset: Option<String>,
    /// Only this exchange
    #[arg(long, value_name = "NAME")]
    exchange: Option<String>,
    /// Only this transport: udp-v1, udp-v2 or http
    #[arg(long, value_name = "TRANSPORT")]
    transport: Option<String>,
    /// Only this status: ok, or the name of an error
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
}

#[derive(Debug, Args)]
struct PageArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// What a usage summary is added up by, with commas between: day, hour, key, asset, exchange,
    /// transport, status
    #[arg(long, value_name = "COLUMNS")]
    by: Option<String>,
    /// Most rows to show
    #[arg(long, value_name = "ROWS")]
    limit: Option<String>,
    /// Where to go on, as the page before has told
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// text, json, csv or tsv
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: String,

    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// As Parquet, into this file or, without one, into the data folder's exports
    #[arg(long, value_name = "FILE", num_args = 0..=1, conflicts_with = "csv", required_unless_present = "csv")]
    #[expect(clippy::option_option, reason = "given or not, and with a file or without")]
    parquet: Option<Option<PathBuf>>,
    /// As CSV, likewise
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "given or not, and with a file or without")]
    csv: Option<Option<PathBuf>>,
    /// Single requests instead of requests by second
    #[arg(long)]
    detail: bool,

    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Carries out `beast report`: results on standard output, remarks on standard error.
pub(crate) fn run(args: &ReportArgs) -> Outcome {
    let (which, page) = match &args.command {
        ReportCommand::Usage(page) => (Which::Usage, page),
        ReportCommand::Detail(page) => (Which::Detail, page),
        ReportCommand::UsageSummary(page) => (Which::UsageSummary, page),
        ReportCommand::Summary(page) => (Which::Summary, page),
        ReportCommand::Reconcile(page) => (Which::Reconcile, page),
        ReportCommand::Export(args) => return run_export(args),
    };
    let config = page.settings.load()?.config;
    let report = open(&config)?
        .report(which, &page.parameters(), Scope::All, RealClock.now())
        .map_err(|refusal| refused(&refusal))?;
    let form = report.query.format.unwrap_or(Format::Text);
    print(&report.write(form))?;
    if let Some(next) = report.page.next.filter(|_| form != Format::Json) {
        // The rows matter, the remark does not.
        let _closed = writeln!(io::stderr(), "There is more: repeat with --cursor {next}");
    }
    if report.closed == Some(false) {
        let cure =
            "look at the rows whose difference is not 0; docs/PROTOCOL.md says what each column counts";
        return Err(Failure::runtime("the books do not close", cure).into());
    }
    Ok(())
}

impl FilterArgs {
    fn parameters(&self) -> Vec<(String, String)> {
        let Self { from, to, key, asset, exchange, transport, status } = self;
        let given = [
            ("from", from),
            ("to", to),
            ("key", key),
            ("asset", asset),
            ("exchange", exchange),
            ("transport", transport),
            ("status", status),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))).collect()
    }
}

impl PageArgs {
    fn parameters(&self) -> Vec<(String, String)> {
        let mut parameters = self.filter.parameters();
        for (name, value) in [("by", &self.by), ("limit", &self.limit), ("cursor", &self.cursor)] {
            parameters.extend(value.clone().map(|value| (name.to_owned(), value)));
        }
        parameters.push(("format".to_owned(), self.format.clone()));
        parameters
    }
}

/// Reports of the data folder. Whoever may read it may see everything.
fn open(config: &Config) -> Result<Reports, Failure> {
    let setup = feed_setup(config, None).map_err(|e| {
        Failure::usage(e.to_string(), "mend that setting; beast config print shows where each comes from")
    })?;
    let store =
        Store::open_existing(config.store_options()).map_err(|e| Failure::runtime(e.what(), e.cure()))?;
    Ok(Reports::new(store.into(), config.data_dir.join("journal"), (*setup.catalogue).clone(), None))
}

fn refused(refusal: &Refusal) -> Failure {
    // Its text says what was found and, behind the last semicolon, what to do.
    let (what, cure) =
        refusal.message.rsplit_once("; ").unwrap_or((&refusal.message, "see beast report --help"));
    match refusal.status {
        400 | 403 => Failure::usage(what, cure),
        _ => Failure::runtime(what, cure),
    }
}

fn run_export(args: &ExportArgs) -> Outcome {
    let config = args.settings.load()?.config;
    let reports = open(&config)?;
    let (form, ending, file) = match (&args.parquet, &args.csv) {
        (Some(file), _) => (ExportForm::Parquet, "parquet", file),
        (None, file) => (ExportForm::Csv, "csv", file.as_ref().unwrap_or(&None)),
    };
    let which = if args.detail { Which::Detail } else { Which::Usage };
    let now = RealClock.now();
    let kept = keep_exports(&config);
    let path = match file {
        Some(path) => path.clone(),
        None => {
            kept.make_folder().map_err(|e| unwritable(&kept.folder, &e))?;
            kept.folder.join(format!("{}-{}.{ending}", which.name(), stamp(now)))
        }
    };
    let rows = write_whole(&path, |out| export(&reports, which, &args.filter.parameters(), form, out, now))?;
    if file.is_none() {
        kept.prune(SystemTime::now()).map_err(|e| unwritable(&kept.folder, &e))?;
    }
    let _closed = writeln!(io::stderr(), "{rows} rows written.");
    Ok(print(&format!("{}\n", path.display()))?)
}

/// A time as part of a file's name, such as 20260131T235959Z.
fn stamp(now: Now) -> String {
    calendar::date_time(now.unix.ms() / 1_000, 'T').replace(['-', ':'], "") + "Z"
}

/// Writes a file under another name first, so that half an export is never taken for a whole one.
fn write_whole(
    path: &Path,
    write: impl FnOnce(BufWriter<File>) -> Result<u64, ExportError>,
) -> Result<u64, Failure> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
    let file = opened.map_err(|e| unwritable(&part, &e))?;
    let written = write(BufWriter::new(file)).map_err(|error| match error {
        ExportError::Refused(refusal) => refused(&refusal),
        ExportError::File(error) => unwritable(&part, &error),
    });
    let finished = written.and_then(|rows| {
        fs::rename(&part, path).map_err(|e| unwritable(path, &e))?;
        Ok(rows)
    });
    if finished.is_err() {
        // What is left of it helps nobody.
        let _gone = fs::remove_file(&part);
    }
    finished
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::runtime(
        format!("{} cannot be written: {error}", path.display()),
        "name a file in a folder that exists, can be written and has room",
    )
}
