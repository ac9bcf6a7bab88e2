import { useState } from "react";
import type { End, Subscription } from "../api";
import { useCoseat } from "../coseat";
import { applied, useAction, useRefresh } from "../data";
import { productName } from "../seats/rights";
import { Failure } from "../ui/Failure";
import { Confirm } from "../ui/Modal";

/** Ends a subscription. Where items end at different times, the person chooses which end. */
export function EndSubscription({ subscription, onClose }: { subscription: Subscription; onClose: () => void }) {
  const { api, t, format, announce } = useCoseat();
  const refresh = useRefresh();
  const { isBusy, failure, run } = useAction();
  const ends = [...new Set(subscription.items.map((item) => item.current_period_end).filter((end) => end !== null))].sort();
  const [earliest, latest] = [ends[0], ends.at(-1)];
  // The moment of each choice: null for now, undefined if it is not known.
  const moments: Record<End, string | null | undefined> = {
    earliest_period_end: earliest,
    latest_period_end: latest,
    period_end: latest,
    now: null,
  };
  const choices: [End, string][] =
    earliest !== undefined && latest !== undefined && earliest !== latest
      ? [
          ["earliest_period_end", t("end.earliest", { date: format.date(earliest) })],
          ["latest_period_end", t("end.latest", { date: format.date(latest) })],
        ]
      : [["period_end", latest === undefined ? t("end.period_end_plain") : t("end.period_end", { date: format.date(latest) })]];
  choices.push(["now", t("end.now")]);
  const [chosen, setChosen] = useState<End>(choices[0]?.[0] ?? "period_end");

  const confirmed = () =>
    run(async () => {
      const changed = await applied(api, api.cancelSubscription(subscription.id, chosen), refresh);
      // A change that was waited for has no answer of its own: it is told with the date of the choice.
      const end = ("ends_at" in changed ? changed.ends_at : null) ?? moments[chosen];
      announce(chosen === "now" ? t("told.ended") : end ? t("told.ends", { date: format.date(end) }) : t("seats.ends"));
      onClose();
    }).finally(refresh);

  return (
    <Confirm
      isOpen
      isDangerous
      isBusy={isBusy}
      title={t("end.title", { name: productName(subscription) ?? t("seats.title") })}
      confirmLabel={t("end.confirm")}
      cancelLabel={t("end.cancel")}
      onConfirm={() => void confirmed()}
      onCancel={onClose}
    >
      <fieldset className="cs-choices">
        <legend>{t("end.when")}</legend>
        {choices.map(([end, label]) => (
          <label key={end} className="cs-choice">
            <input type="radio" name="end" checked={chosen === end} onChange={() => setChosen(end)} />
            <span>
              {label}
              {end === "now" && <span className="cs-hint">{t("end.now_hint")}</span>}
            </span>
          </label>
        ))}
      </fieldset>
      <Failure failure={failure} />
    </Confirm>
  );
}
