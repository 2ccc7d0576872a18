//! A plot: geometry in an inline SVG that stretches to whatever room there is, words around it in
//! HTML, so that they stay readable on a phone.

use std::fmt::Write as _;

use super::format::escaped;

/// Units of the drawing. It is stretched, so they only have to be fine enough.
const WIDTH: f64 = 1_000.0;
const HEIGHT: f64 = 400.0;

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// Equal steps are equally far apart.
    Linear,
    /// Equal factors are equally far apart.
    Log,
}

/// A mark on an axis.
#[derive(Clone, Debug)]
pub(super) struct Tick {
    pub(super) at: f64,
    pub(super) text: String,
    /// Left out where there is little room.
    pub(super) minor: bool,
}

/// One direction of a plot.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) scale: Scale,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) ticks: Vec<Tick>,
    /// What it shows, with the unit if the ticks have none.
    pub(super) label: &'static str,
}

impl Axis {
    /// From zero to somewhat above the most, with ticks at round numbers.
    pub(super) fn linear(most: f64, label: &'static str, text: fn(f64) -> String) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let rough = most / 4.0;
        let decade = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * decade).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        let mut ticks = Vec::new();
        for n in 0..12 {
            let at = f64::from(n) * step;
            if at > most * 1.06 {
                break;
            }
            ticks.push(Tick { at, text: text(at), minor: n % 2 == 1 });
        }
        Self { scale: Scale::Linear, min: 0.0, max: most * 1.06, ticks, label }
    }

    /// Exactly from zero to the most: for time.
    pub(super) fn span(most: f64, label: &'static str, text: fn(f64) -> String) -> Self {
        let mut axis = Self::linear(most, label, text);
        axis.max = if most > 0.0 { most } else { 1.0 };
        axis.ticks.retain(|tick| tick.at <= axis.max);
        axis
    }

    /// Factors of ten around the values, with ticks at 1, 2 and 5 where there are few decades.
    pub(super) fn log(least: f64, most: f64, label: &'static str, text: fn(f64) -> String) -> Self {
        let least = least.max(1.0);
        let most = most.max(least * 1.5);
        let (min, max) = (least / 1.15, most * 1.15);
        let decades = (max / min).log10();
        let mut ticks = Vec::new();
        let mut decade = 10_f64.powf(min.log10().floor());
        while decade <= max {
            for factor in [1.0, 2.0, 5.0] {
                let at = decade * factor;
                let wanted = factor == 1.0 || decades < 3.5;
                if at >= min && at <= max && wanted {
                    ticks.push(Tick { at, text: text(at), minor: factor != 1.0 && decades > 1.3 });
                }
            }
            decade *= 10.0;
        }
        Self { scale: Scale::Log, min, max, ticks, label }
    }

    /// Where a value lies, 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.min) / (self.max - self.min),
            Scale::Log => (value.max(self.min) / self.min).log10() / (self.max / self.min).log10(),
        };
        if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// A line of a plot.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Its name in the legend.
    pub(super) name: String,
    /// Number of its colour, from 0.
    pub(super) colour: usize,
    /// Whether it is drawn thin and dashed.
    pub(super) dashed: bool,
    /// Whether the room below it is tinted.
    pub(super) filled: bool,
    pub(super) points: Vec<(f64, f64)>,
}

/// A tinted cell behind the lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    pub(super) x: (f64, f64),
    pub(super) y: (f64, f64),
    /// How full it is, 0 to 1.
    pub(super) weight: f64,
}

/// A plot with everything that stands around it.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    /// Its own among all of a page.
    pub(super) id: String,
    pub(super) title: String,
    /// What to see in it.
    pub(super) about: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) cells: Vec<Cell>,
    pub(super) lines: Vec<Line>,
    /// Levels that are marked across, with what they are.
    pub(super) marks: Vec<(f64, String)>,
    /// Stretches of x that say something when pointed at.
    pub(super) hints: Vec<(f64, f64, String)>,
    /// The table of figures behind it: HTML.
    pub(super) table: String,
}

/// Colours there are; a plot with more lines begins again.
pub(super) const COLOURS: usize = 6;

impl Plot {
    /// As HTML.
    pub(super) fn html(&self) -> String {
        let id = &self.id;
        let mut out = format!(
            "<figure class=\"plot\" id=\"{id}\"><figcaption><h3>{}</h3><p>{}</p></figcaption>",
            escaped(&self.title),
            escaped(&self.about)
        );
        self.legend(&mut out);
        let _ = write!(
            out,
            "<div class=\"frame\"><div class=\"axis-y\"><span class=\"name\">{}</span>",
            self.y.label
        );
        for tick in &self.y.ticks {
            let minor = if tick.minor { " class=\"minor\"" } else { "" };
            let bottom = self.y.place(tick.at) * 100.0;
            let _ = write!(out, "<span{minor} style=\"bottom:{bottom:.2}%\">{}</span>", escaped(&tick.text));
        }
        out.push_str("</div><div class=\"area\">");
        self.svg(&mut out);
        for (level, name) in &self.marks {
            let bottom = self.y.place(*level) * 100.0;
            let _ =
                write!(out, "<span class=\"mark\" style=\"bottom:{bottom:.2}%\">{}</span>", escaped(name));
        }
        out.push_str("</div><div class=\"axis-x\">");
        for tick in &self.x.ticks {
            let minor = if tick.minor { " class=\"minor\"" } else { "" };
            let left = self.x.place(tick.at) * 100.0;
            let _ = write!(out, "<span{minor} style=\"left:{left:.2}%\">{}</span>", escaped(&tick.text));
        }
        let _ = write!(out, "</div><div class=\"name-x\">{}</div></div>", self.x.label);
        let _ = write!(
            out,
            "<details><summary>Figures of this plot</summary><div class=\"scroll\">{}</div></details></figure>",
            self.table
        );
        out
    }

    fn legend(&self, out: &mut String) {
        out.push_str("<ul class=\"legend\">");
        for line in &self.lines {
            let dashed = if line.dashed { " dashed" } else { "" };
            let _ = write!(
                out,
                "<li><i class=\"key c{}{dashed}\"></i>{}</li>",
                line.colour % COLOURS,
                escaped(&line.name)
            );
        }
        out.push_str("</ul>");
    }

    fn svg(&self, out: &mut String) {
        let id = &self.id;
        let (x, y) = (|v| self.x.place(v) * WIDTH, |v| (1.0 - self.y.place(v)) * HEIGHT);
        let _ = write!(
            out,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
             aria-labelledby=\"{id}-t {id}-d\"><title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{}</desc>",
            escaped(&self.title),
            escaped(&self.about)
        );
        for Cell { x: (left, right), y: (low, high), weight } in &self.cells {
            let (left, top) = (x(*left), y(*high));
            let (width, height) = (x(*right) - left, y(*low) - top);
            let _ = write!(
                out,
                "<rect class=\"cell\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
                 fill-opacity=\"{:.2}\"/>",
                weight.clamp(0.0, 1.0)
            );
        }
        out.push_str("<path class=\"grid\" d=\"");
        for tick in &self.y.ticks {
            let _ = write!(out, "M0 {:.1}H{WIDTH}", y(tick.at));
        }
        for tick in self.x.ticks.iter() {
            let _ = write!(out, "M{:.1} 0V{HEIGHT}", x(tick.at));
        }
        out.push_str("\"/>");
        for (level, _) in &self.marks {
            let _ = write!(out, "<path class=\"level\" d=\"M0 {:.1}H{WIDTH}\"/>", y(*level));
        }
        for line in &self.lines {
            let colour = line.colour % COLOURS;
            let mut path = String::new();
            for (index, (px, py)) in line.points.iter().enumerate() {
                let _ = write!(path, "{}{:.1} {:.1}", if index == 0 { 'M' } else { 'L' }, x(*px), y(*py));
            }
            let [first, .., last] = &line.points[..] else {
                if let [(px, py)] = line.points[..] {
                    let _ = write!(out, "<path class=\"dot c{colour}\" d=\"M{:.1} {:.1}h0\"/>", x(px), y(py));
                }
                continue;
            };
            if line.filled {
                let (from, to) = (x(first.0), x(last.0));
                let _ = write!(
                    out,
                    "<path class=\"fill c{colour}\" d=\"{path}L{to:.1} {HEIGHT}L{from:.1} {HEIGHT}Z\"/>"
                );
            }
            let dashed = if line.dashed { " dashed" } else { "" };
            let _ = write!(out, "<path class=\"line c{colour}{dashed}\" d=\"{path}\"/>");
            // Its end, so that the eye finds the extreme.
            let _ = write!(out, "<path class=\"dot c{colour}\" d=\"M{:.1} {:.1}h0\"/>", x(last.0), y(last.1));
        }
        for (from, to, text) in &self.hints {
            let (left, right) = (x(*from), x(*to));
            let _ = write!(
                out,
                "<rect class=\"hint\" x=\"{left:.1}\" y=\"0\" width=\"{:.1}\" height=\"{HEIGHT}\"><title>{}</title></rect>",
                (right - left).max(0.1),
                escaped(text)
            );
        }
        out.push_str("</svg>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(value: f64) -> String {
        format!("{value}")
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = Axis::linear(487_900.0, "", plain);
        let texts: Vec<_> = axis.ticks.iter().map(|tick| tick.text.as_str()).collect();
        assert_eq!(texts, ["0", "200000", "400000"]);
        let axis = Axis::log(12_000.0, 3_000_000.0, "", plain);
        let texts: Vec<_> = axis.ticks.iter().map(|tick| tick.text.as_str()).collect();
        assert_eq!(texts, ["20000", "50000", "100000", "200000", "500000", "1000000", "2000000"]);
        assert_eq!(Axis::span(30.0, "", plain).ticks.last().map(|tick| tick.at), Some(30.0));
    }

    #[test]
    fn places_stay_in_the_drawing_whatever_the_values() {
        for axis in [Axis::linear(0.0, "", plain), Axis::log(0.0, 0.0, "", plain), Axis::span(0.0, "", plain)]
        {
            for value in [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e300] {
                assert!((0.0..=1.0).contains(&axis.place(value)), "{axis:?} {value}");
            }
        }
    }
}
