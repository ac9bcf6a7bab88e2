import * as Tabs from "@radix-ui/react-tabs";
import { type ReactNode, useCallback, useMemo, useState } from "react";
import type { Subscription } from "../api";
import { type CoseatProps, CoseatProvider, useCoseat } from "../coseat";
import { useLive, useMe, useOnline, useSharedSubscription, useSubscriptions } from "../data";
import { isDenied } from "../errors";
import { PaymentWaiting } from "../payments/PaymentWaiting";
import { Modal } from "../ui/Modal";
import { Notice } from "../ui/Notice";
import { Empty, Failed, Loading } from "../ui/States";
import { History } from "./History";
import { Invitations } from "./Invitations";
import { People } from "./People";
import { PurchasePermission } from "./PurchasePermission";
import { SeatBar } from "./SeatBar";
import { SeatStepper } from "./SeatStepper";
import { TransferNotice } from "./Transfer";
import { productName, rightsOf } from "./rights";
import type { MarkTyped } from "./typed";

export interface SeatDialogProps extends CoseatProps {
  /** Without it, the first shared subscription of the person is shown. */
  subscriptionId?: string;
  isOpen?: boolean;
  onClose?: () => void;
}

/** The seats of a shared subscription and the people on them, as a dialog for any page. */
export function SeatDialog({ subscriptionId, isOpen = true, onClose = () => {}, ...coseat }: SeatDialogProps) {
  return (
    <CoseatProvider {...coseat}>
      {isOpen &&
        (subscriptionId === undefined ? (
          <FirstShared onClose={onClose} />
        ) : (
          <Seats subscriptionId={subscriptionId} onClose={onClose} />
        ))}
    </CoseatProvider>
  );
}

function FirstShared({ onClose }: { onClose: () => void }) {
  const { t } = useCoseat();
  const me = useMe();
  const subscriptions = useSubscriptions();
  const first = subscriptions.data?.data.find((subscription) => subscription.shared !== null);
  if (first) return <Seats subscriptionId={first.id} onClose={onClose} />;
  return (
    <Modal title={t("seats.title")} size="wide" onClose={onClose}>
      <div className="cs-modal-body">
        {me.isError && <Failed error={me.error} onRetry={() => me.refetch()} />}
        {subscriptions.isPending && !me.isError && <Loading />}
        {subscriptions.isError && <Failed error={subscriptions.error} onRetry={() => subscriptions.refetch()} />}
        {subscriptions.isSuccess && <Empty title={t("seats.none")} />}
      </div>
    </Modal>
  );
}

/** The dialog inside a `CoseatProvider`. */
export function Seats({ subscriptionId, onClose }: { subscriptionId: string; onClose: () => void }) {
  const { t } = useCoseat();
  const [typed, setTyped] = useState<Record<string, boolean>>({});
  const markTyped = useCallback((what: string, isTyped: boolean) => {
    setTyped((before) => (Boolean(before[what]) === isTyped ? before : { ...before, [what]: isTyped }));
  }, []);
  const me = useMe();
  const subscription = useSharedSubscription(subscriptionId);
  const isOnline = useOnline();
  const shown = isDenied(subscription.error) ? undefined : subscription.data;
  const name = shown ? productName(shown) : null;
  return (
    <Modal
      size="wide"
      title={name ?? t("seats.title")}
      description={name === null ? null : t("seats.subtitle")}
      isDirty={Object.values(typed).some(Boolean)}
      onClose={onClose}
    >
      <div className="cs-modal-body">
        {!isOnline && <Notice tone="warning" isAlert title={t("offline.title")}><p>{t("offline.text")}</p></Notice>}
        {me.isError && <Failed error={me.error} onRetry={() => me.refetch()} />}
        {subscription.isError && !shown && (
          <Failed error={subscription.error} onRetry={() => subscription.refetch()} />
        )}
        {(me.isPending || subscription.isPending) && !me.isError && <Loading rows={6} />}
        {me.data && shown && (
          <Content key={subscriptionId} subscription={shown} me={me.data.id} markTyped={markTyped} onLeft={onClose} />
        )}
      </div>
    </Modal>
  );
}

interface ContentProps {
  subscription: Subscription;
  me: string;
  markTyped: MarkTyped;
  onLeft: () => void;
}

function Content({ subscription, me, markTyped, onLeft }: ContentProps) {
  const { t, format } = useCoseat();
  const rights = useMemo(() => rightsOf(subscription, me), [subscription, me]);
  const [isChangingSeats, setChangingSeats] = useState(false);
  useLive(subscription.id);
  const shared = subscription.shared;
  const sections: Section[] = [];
  if (rights.canSeePeople) {
    const content = <People {...{ subscription, me, rights, markTyped, onLeft }} />;
    sections.push({ name: "people", label: t("tab.people"), content });
  }
  if (rights.canManage) {
    sections.push({ name: "invitations", label: t("tab.invitations"), content: <Invitations subscription={subscription} /> });
  }
  if (rights.canAllowPurchases) {
    const content = <PurchasePermission subscription={subscription} />;
    sections.push({ name: "permission", label: t("tab.permission"), content });
  }
  if (rights.canManage || rights.canAllowPurchases) {
    sections.push({ name: "history", label: t("tab.history"), content: <History subscriptionId={subscription.id} /> });
  }
  if (shared === null) return <Empty title={t("error.not_shareable")} />;
  return (
    <>
      <SeatBar
        seats={shared.seats}
        onChange={rights.canChangeSeats ? () => setChangingSeats(!isChangingSeats) : null}
        isChanging={isChangingSeats}
      />
      {isChangingSeats && (
        <SeatStepper subscription={subscription} markTyped={markTyped} onDone={() => setChangingSeats(false)} />
      )}
      <Notices subscription={subscription} me={me} />
      <Sections sections={sections} />
      {!rights.canManage && shared.owner && (
        <p className="cs-contact">
          {t("contact.owner", { owner: format.list([shared.owner.name, shared.owner.email].filter((part) => part !== null)) })}
        </p>
      )}
    </>
  );
}

function Notices({ subscription, me }: { subscription: Subscription; me: string }) {
  const { t } = useCoseat();
  const seats = subscription.shared?.seats;
  return (
    <>
      {subscription.pending_change && <PaymentWaiting subscription={subscription} change={subscription.pending_change} />}
      <TransferNotice subscription={subscription} me={me} />
      {seats !== undefined && seats.over_allocated > 0 && (
        <Notice tone="warning" title={t("over.title", { count: seats.over_allocated })}>
          <p>{t("over.text")}</p>
        </Notice>
      )}
      {subscription.cancel_at_period_end && <Notice tone="info"><p>{t("seats.ends")}</p></Notice>}
    </>
  );
}

interface Section {
  name: string;
  label: string;
  content: ReactNode;
}

function Sections({ sections }: { sections: Section[] }) {
  if (sections.length === 1) return <>{sections[0]?.content}</>;
  return (
    <Tabs.Root defaultValue={sections[0]?.name ?? ""} className="cs-tabs">
      <Tabs.List className="cs-tab-list">
        {sections.map(({ name, label }) => (
          <Tabs.Trigger key={name} value={name} className="cs-tab">
            {label}
          </Tabs.Trigger>
        ))}
      </Tabs.List>
      {sections.map(({ name, content }) => (
        <Tabs.Content key={name} value={name} className="cs-tab-content" tabIndex={-1}>
          {content}
        </Tabs.Content>
      ))}
    </Tabs.Root>
  );
}
