//! Seconds since 1970 and the proleptic Gregorian calendar, both ways.

/// Seconds of a day.
const DAY: i64 = 86_400;
/// Days of 400 years, after which the calendar repeats.
const ERA: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: i64 = 719_468;
/// The first second of year 0, and the last of year 9999: what four digits can tell.
pub(super) const FIRST: i64 = -62_167_219_200;
pub(super) const LAST: i64 = 253_402_300_799;

/// A date and time, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DateTime {
    /// 0 to 9999.
    pub(super) year: i64,
    /// 1 to 12.
    pub(super) month: i64,
    /// 1 to 31.
    pub(super) day: i64,
    /// 1 is Sunday, 7 is Saturday.
    pub(super) weekday: i64,
    pub(super) hour: i64,
    pub(super) minute: i64,
    pub(super) second: i64,
}

impl DateTime {
    /// The moment `seconds` after 1970-01-01 00:00; the nearest that four digits can tell.
    pub(super) fn from_seconds(seconds: i64) -> Self {
        let seconds = seconds.clamp(FIRST, LAST);
        let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));

        // Years that begin in March have their leap day at the end: months then follow a fixed pattern of 153 days to
        // five months.
        let since_march_0 = days + EPOCH;
        let era = since_march_0.div_euclid(ERA);
        let day_of_era = since_march_0.rem_euclid(ERA);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / (ERA - 1)) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let january_or_february = march_month >= 10;

        Self {
            year: 400 * era + year_of_era + i64::from(january_or_february),
            month: march_month + if january_or_february { -9 } else { 3 },
            day: day_of_year - (153 * march_month + 2) / 5 + 1,
            weekday: (days + 4).rem_euclid(7) + 1,
            hour: second / 3_600,
            minute: second / 60 % 60,
            second: second % 60,
        }
    }

    /// The seconds since 1970-01-01 00:00, if there is such a moment; the weekday does not matter.
    pub(super) fn to_seconds(self) -> Option<i64> {
        let date = (0..=9999).contains(&self.year)
            && (1..=12).contains(&self.month)
            && (1..=days_of_month(self.year, self.month)).contains(&self.day);
        let time = (0..24).contains(&self.hour)
            && (0..60).contains(&self.minute)
            && (0..60).contains(&self.second);
        (date && time)
            .then(|| self.days() * DAY + self.hour * 3_600 + self.minute * 60 + self.second)
    }

    /// Days since 1970-01-01 of a date that exists.
    fn days(self) -> i64 {
        let january_or_february = self.month <= 2;
        let year = self.year - i64::from(january_or_february);
        let march_month = self.month + if january_or_february { 9 } else { -3 };
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * march_month + 2) / 5 + self.day - 1;
        let day_of_era = 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year;
        ERA * year.div_euclid(400) + day_of_era - EPOCH
    }
}

fn days_of_month(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every day of ten thousand years, counted one by one.
    #[test]
    fn every_day_agrees_with_counting() {
        let mut seconds = FIRST;
        // 0000-01-01 was a Saturday.
        let mut weekday = 7;
        for year in 0..10_000 {
            for month in 1..=12 {
                for day in 1..=days_of_month(year, month) {
                    let date = DateTime::from_seconds(seconds);
                    let counted = DateTime {
                        year,
                        month,
                        day,
                        weekday,
                        hour: 0,
                        minute: 0,
                        second: 0,
                    };
                    assert_eq!(date, counted);
                    assert_eq!(date.to_seconds(), Some(seconds));
                    seconds += DAY;
                    weekday = weekday % 7 + 1;
                }
            }
        }
        assert_eq!(seconds, LAST + 1);
    }

    #[test]
    fn known_moments() {
        let of = |seconds| {
            let d = DateTime::from_seconds(seconds);
            (
                d.year, d.month, d.day, d.weekday, d.hour, d.minute, d.second,
            )
        };
        assert_eq!(of(0), (1970, 1, 1, 5, 0, 0, 0));
        assert_eq!(of(951_827_696), (2000, 2, 29, 3, 12, 34, 56));
        assert_eq!(of(1_709_251_199), (2024, 2, 29, 5, 23, 59, 59));
        assert_eq!(of(4_107_542_400), (2100, 3, 1, 2, 0, 0, 0));
        assert_eq!(of(-1), (1969, 12, 31, 4, 23, 59, 59));
    }

    #[test]
    fn what_does_not_exist_is_none() {
        let ok = DateTime::from_seconds(951_827_696);
        for bad in [
            DateTime { year: 1900, ..ok },
            DateTime { year: -4, ..ok },
            DateTime { month: 0, ..ok },
            DateTime { month: 13, ..ok },
            DateTime { day: 30, ..ok },
            DateTime { day: 0, ..ok },
            DateTime { hour: 24, ..ok },
            DateTime { minute: 60, ..ok },
            DateTime { second: 60, ..ok },
        ] {
            assert_eq!(bad.to_seconds(), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_moment_round_trips(seconds in FIRST..=LAST) {
            prop_assert_eq!(DateTime::from_seconds(seconds).to_seconds(), Some(seconds));
        }

        #[test]
        fn any_number_is_a_moment(seconds: i64) {
            let moment = DateTime::from_seconds(seconds).to_seconds();
            prop_assert_eq!(moment, Some(seconds.clamp(FIRST, LAST)));
        }
    }
}
