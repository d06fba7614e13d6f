//! Formats the date of a label as Apptainer does: `Sunday_22_November_2026_0:38:22_UTC`.
#![forbid(unsafe_code)]

const DAY: i64 = 86_400;
const WEEKDAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Date of a number of seconds since 1970, in UTC.
pub fn text(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let pick = |list: &[&'static str], at: i64| usize::try_from(at).ok().and_then(|at| list.get(at)).copied();
    format!(
        "{}_{day}_{}_{year}_{}:{}:{}_UTC",
        pick(&WEEKDAYS, days.rem_euclid(7)).unwrap_or_default(),
        pick(&MONTHS, month).unwrap_or_default(),
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// Year, month (from 0) and day (from 1) of a number of days since 1970.
fn civil(mut days: i64) -> (i64, i64, i64) {
    let leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    // Every 400 years have the same number of days.
    let mut year = 1970 + days.div_euclid(146_097) * 400;
    days = days.rem_euclid(146_097);
    loop {
        let length = 365 + i64::from(leap(year));
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = 28 + i64::from(leap(year));
    for (month, length) in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].into_iter().enumerate() {
        if days < length {
            return (year, i64::try_from(month).unwrap_or_default(), days + 1);
        }
        days -= length;
    }
    (year, 11, 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // date -u -d @N '+%A_%-d_%B_%Y_%-H:%-M:%-S_UTC'
        for (seconds, wanted) in [
            (0, "Thursday_1_January_1970_0:0:0_UTC"),
            (951_782_399, "Monday_28_February_2000_23:59:59_UTC"),
            (951_827_696, "Tuesday_29_February_2000_12:34:56_UTC"),
            (1_700_000_000, "Tuesday_14_November_2023_22:13:20_UTC"),
            (4_107_542_400, "Monday_1_March_2100_0:0:0_UTC"),
            (4_294_967_295, "Sunday_7_February_2106_6:28:15_UTC"),
        ] {
            assert_eq!(text(seconds), wanted);
        }
    }
}
