import type { Seats } from "../api";
import { useCoseat } from "../coseat";
import { Button } from "../ui/Button";

interface SeatBarProps {
  seats: Seats;
  /** Null if the person may not change the number of seats. */
  onChange: (() => void) | null;
  isChanging: boolean;
}

/** The numbers of seats in one line, with a bar that shows the same. */
export function SeatBar({ seats, onChange, isChanging }: SeatBarProps) {
  const { t, format } = useCoseat();
  const width = Math.max(seats.total, seats.used + seats.reserved, 1);
  const share = (count: number) => `${(count / width) * 100}%`;
  const counts = [
    { name: "total", text: t("count.total", { count: seats.total }) },
    { name: "used", text: t("count.used", { count: seats.used }) },
    ...(seats.reserved > 0 ? [{ name: "reserved", text: t("count.reserved", { count: seats.reserved }) }] : []),
    { name: "free", text: t("count.free", { count: seats.available }) },
    ...(seats.over_allocated > 0
      ? [{ name: "over", text: t("count.over", { count: seats.over_allocated, shown: format.number(seats.over_allocated) }) }]
      : []),
  ];
  return (
    <section className="cs-seat-bar" aria-label={t("seats.summary")}>
      <div className="cs-seat-bar-line">
        <p className="cs-counts" data-testid="counts">
          {counts.map((count) => (
            <span key={count.name} className={`cs-count cs-count-${count.name}`}>
              {count.text}
            </span>
          ))}
        </p>
        {onChange && (
          <Button onClick={onChange} aria-expanded={isChanging}>
            {t("seats.change")}
          </Button>
        )}
      </div>
      <div className="cs-meter" aria-hidden="true">
        <span className="cs-meter-used" style={{ inlineSize: share(seats.used) }} />
        <span className="cs-meter-reserved" style={{ inlineSize: share(seats.reserved) }} />
        {seats.over_allocated > 0 && <span className="cs-meter-over" style={{ inlineSize: share(seats.over_allocated) }} />}
      </div>
    </section>
  );
}
