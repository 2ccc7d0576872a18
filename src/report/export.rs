//! Whole reports into files: CSV, and Parquet for tools that read columns.

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;

use super::format::{csv_head, csv_row};
use super::query::{LIMIT_MAX, Scope, Which};
use super::refusal::Refusal;
use super::service::Reports;
use super::table::{Cell, Column, Kind};
use crate::time::Now;

/// Rows of a Parquet row group: what is held in memory at a time.
const GROUP_ROWS: usize = 100_000;

/// The form of an exported file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportForm {
    /// As the report in that form.
    Csv,
    /// Columns of 64-bit numbers, texts and timestamps in UTC.
    Parquet,
}

/// Why an export was not finished.
#[derive(Debug)]
pub enum ExportError {
    /// The report cannot be had.
    Refused(Refusal),
    /// The file cannot be written.
    File(io::Error),
}

impl From<Refusal> for ExportError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<io::Error> for ExportError {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

impl From<ParquetError> for ExportError {
    fn from(error: ParquetError) -> Self {
        Self::File(io::Error::other(error))
    }
}

/// Writes all pages of a report into `out`; says how many rows that were.
///
/// # Errors
/// A parameter is wrong, store or journal cannot be read, or the file not written.
pub fn export(
    reports: &Reports,
    which: Which,
    parameters: &[(String, String)],
    form: ExportForm,
    out: impl Write + Send,
    now: Now,
) -> Result<u64, ExportError> {
    let mut parameters = parameters.to_vec();
    parameters.push(("limit".to_owned(), LIMIT_MAX.to_string()));
    let mut page = reports.report(which, &parameters, Scope::All, now)?.page;
    let columns = page.table.columns.clone();
    let mut sink = Sink::new(form, out, &columns)?;
    let mut count = 0_u64;
    loop {
        count = count.saturating_add(page.table.rows.len() as u64);
        sink.write(&columns, page.table.rows)?;
        let Some(next) = page.next else { break };
        parameters.retain(|(name, _)| name != "cursor");
        parameters.push(("cursor".to_owned(), next));
        page = reports.report(which, &parameters, Scope::All, now)?.page;
    }
    sink.finish(&columns)?;
    Ok(count)
}

enum Sink<W: Write + Send> {
    Csv(W),
    Parquet { writer: Box<SerializedFileWriter<W>>, held: Vec<Vec<Cell>> },
}

impl<W: Write + Send> Sink<W> {
    fn new(form: ExportForm, mut out: W, columns: &[Column]) -> Result<Self, ExportError> {
        match form {
            ExportForm::Csv => {
                out.write_all(csv_head(columns).as_bytes())?;
                Ok(Self::Csv(out))
            }
            ExportForm::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::UNCOMPRESSED)
                    .set_created_by(concat!("beast ", env!("CARGO_PKG_VERSION")).to_owned())
                    .build();
                let writer =
                    SerializedFileWriter::new(out, Arc::new(schema(columns)?), Arc::new(properties))?;
                Ok(Self::Parquet { writer: Box::new(writer), held: Vec::new() })
            }
        }
    }

    fn write(&mut self, columns: &[Column], rows: Vec<Vec<Cell>>) -> Result<(), ExportError> {
        match self {
            Self::Csv(out) => {
                for row in rows {
                    out.write_all(csv_row(columns, &row).as_bytes())?;
                }
            }
            Self::Parquet { writer, held } => {
                held.extend(rows);
                if held.len() >= GROUP_ROWS {
                    write_group(writer, columns, held)?;
                }
            }
        }
        Ok(())
    }

    fn finish(self, columns: &[Column]) -> Result<(), ExportError> {
        match self {
            Self::Csv(mut out) => out.flush()?,
            Self::Parquet { mut writer, mut held } => {
                if !held.is_empty() {
                    write_group(&mut writer, columns, &mut held)?;
                }
                writer.into_inner()?.flush()?;
            }
        }
        Ok(())
    }
}

fn schema(columns: &[Column]) -> Result<Type, ParquetError> {
    let fields = columns.iter().map(|column| {
        let timestamp = LogicalType::timestamp(true, TimeUnit::NANOS);
        let (physical, logical) = match column.kind {
            Kind::Number | Kind::Signed => (Physical::INT64, None),
            Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Kind::Second | Kind::Instant => (Physical::INT64, Some(timestamp)),
        };
        let field = Type::primitive_type_builder(column.name, physical).with_logical_type(logical);
        field.with_repetition(Repetition::OPTIONAL).build().map(Arc::new)
    });
    Type::group_type_builder("usage").with_fields(fields.collect::<Result<_, _>>()?).build()
}

/// Writes the rows that are held as one row group.
fn write_group<W: Write + Send>(
    writer: &mut SerializedFileWriter<W>,
    columns: &[Column],
    held: &mut Vec<Vec<Cell>>,
) -> Result<(), ExportError> {
    let mut group = writer.next_row_group()?;
    for (at, column) in columns.iter().enumerate() {
        write_column(&mut group, *column, held.iter().map(|row| row.get(at).unwrap_or(&Cell::Nothing)))?;
    }
    group.close()?;
    held.clear();
    Ok(())
}

fn write_column<'a, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    column: Column,
    cells: impl Iterator<Item = &'a Cell>,
) -> Result<(), ExportError> {
    let Some(mut writer) = group.next_column()? else { return Ok(()) };
    let (mut levels, mut numbers, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for cell in cells {
        levels.push(i16::from(*cell != Cell::Nothing));
        match cell {
            Cell::Nothing => {}
            // Parquet's numbers are signed; nothing that is counted gets beyond them.
            Cell::Number(number) => numbers.push(i64::try_from(*number).unwrap_or(i64::MAX)),
            Cell::Signed(number) => numbers.push(*number),
            Cell::Time(at) => numbers.push(i64::try_from(at.0).unwrap_or(i64::MAX)),
            Cell::Text(text) => texts.push(ByteArray::from(text.as_str())),
        }
    }
    match column.kind {
        Kind::Text => writer.typed::<ByteArrayType>().write_batch(&texts, Some(&levels), None)?,
        _ => writer.typed::<Int64Type>().write_batch(&numbers, Some(&levels), None)?,
    };
    writer.close()?;
    Ok(())
}
