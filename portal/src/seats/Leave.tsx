import type { Subscription } from "../api";
import { useCoseat } from "../coseat";
import { applied, useAction, useRefresh } from "../data";
import { Confirm } from "../ui/Modal";
import { Failure } from "../ui/Failure";
import { productName } from "./rights";

interface LeaveProps {
  subscription: Subscription;
  onClose: () => void;
  onLeft: () => void;
}

export function Leave({ subscription, onClose, onLeft }: LeaveProps) {
  const { api, t, announce } = useCoseat();
  const refresh = useRefresh();
  const { isBusy, failure, run } = useAction();
  const name = productName(subscription) ?? t("seats.title");

  const confirmed = () =>
    run(async () => {
      await applied(api, api.leave(subscription.id), refresh);
      announce(t("told.left", { name }));
      onLeft();
      await refresh();
    });

  return (
    <Confirm
      isOpen
      isDangerous
      isBusy={isBusy}
      title={t("leave.title", { name })}
      confirmLabel={t("leave.confirm")}
      onConfirm={() => void confirmed()}
      onCancel={onClose}
    >
      <p>{t("leave.text")}</p>
      <Failure failure={failure} />
    </Confirm>
  );
}
