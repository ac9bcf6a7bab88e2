import * as Alert from "@radix-ui/react-alert-dialog";
import * as Dialog from "@radix-ui/react-dialog";
import { type ReactNode, useRef, useState } from "react";
import { useCoseat } from "../coseat";
import { Button, IconButton } from "./Button";
import { CloseIcon } from "./icons";

/** What opened a dialog: what has the focus, or the button of the menu that has it. */
function openerOf(focused: Element | null): HTMLElement | null {
  const menu = focused?.closest("[role=menu]")?.getAttribute("aria-labelledby");
  return menu ? document.getElementById(menu) : (focused as HTMLElement | null);
}

/** Returns the focus to what opened the dialog. Radix does so only for its own triggers. */
function useReturnedFocus() {
  const opener = useRef<HTMLElement | null>(null);
  return {
    onOpenAutoFocus: () => {
      opener.current = openerOf(document.activeElement);
    },
    onCloseAutoFocus: (event: Event) => {
      event.preventDefault();
      opener.current?.focus();
    },
  };
}

interface ModalProps {
  title: string;
  description?: ReactNode;
  /** True if something was typed that closing would lose: the person is asked first. */
  isDirty?: boolean;
  size?: "narrow" | "wide";
  onClose: () => void;
  children: ReactNode;
}

/** A dialog. The focus goes in, stays in, and returns to where it was. */
export function Modal({ title, description, isDirty = false, size = "narrow", onClose, children }: ModalProps) {
  const { container, t } = useCoseat();
  const [isAsking, setAsking] = useState(false);
  const returnedFocus = useReturnedFocus();
  const close = () => (isDirty ? setAsking(true) : onClose());
  return (
    <Dialog.Root open onOpenChange={(open) => !open && close()}>
      <Dialog.Portal container={container}>
        <Dialog.Overlay className="cs-overlay">
          <Dialog.Content
            className={`cs-modal cs-modal-${size}`}
            {...returnedFocus}
            onPointerDownOutside={(event) => {
              // A click on the scroll bar of the overlay is no click outside.
              if (event.detail.originalEvent.offsetX > (event.target as HTMLElement).clientWidth) event.preventDefault();
            }}
          >
            <header className="cs-modal-header">
              <div>
                <Dialog.Title className="cs-modal-title">{title}</Dialog.Title>
                <Dialog.Description className="cs-modal-description" asChild>
                  <div>{description}</div>
                </Dialog.Description>
              </div>
              <IconButton label={t("dialog.close")} onClick={close}>
                <CloseIcon />
              </IconButton>
            </header>
            {children}
          </Dialog.Content>
        </Dialog.Overlay>
      </Dialog.Portal>
      <Confirm
        isOpen={isAsking}
        title={t("discard.title")}
        confirmLabel={t("discard.confirm")}
        cancelLabel={t("discard.cancel")}
        isDangerous
        onConfirm={() => {
          setAsking(false);
          onClose();
        }}
        onCancel={() => setAsking(false)}
      >
        {t("discard.text")}
      </Confirm>
    </Dialog.Root>
  );
}

interface ConfirmProps {
  isOpen: boolean;
  title: string;
  confirmLabel: string;
  cancelLabel?: string;
  isDangerous?: boolean;
  isBusy?: boolean;
  canConfirm?: boolean;
  onConfirm: () => void;
  onCancel: () => void;
  children: ReactNode;
}

/** A question that must be answered. The focus begins at the harmless answer. */
export function Confirm(props: ConfirmProps) {
  const { container, t } = useCoseat();
  const returnedFocus = useReturnedFocus();
  return (
    <Alert.Root open={props.isOpen} onOpenChange={(open) => !open && props.onCancel()}>
      <Alert.Portal container={container}>
        <Alert.Overlay className="cs-overlay cs-overlay-above">
          <Alert.Content className="cs-modal cs-modal-confirm" {...returnedFocus}>
            <Alert.Title className="cs-modal-title">{props.title}</Alert.Title>
            <Alert.Description asChild>
              <div className="cs-confirm-text">{props.children}</div>
            </Alert.Description>
            <div className="cs-confirm-actions">
              <Alert.Cancel asChild>
                <Button>{props.cancelLabel ?? t("dialog.cancel")}</Button>
              </Alert.Cancel>
              <Button
                variant={props.isDangerous ? "danger" : "primary"}
                isBusy={props.isBusy ?? false}
                disabled={props.canConfirm === false}
                onClick={props.onConfirm}
              >
                {props.confirmLabel}
              </Button>
            </div>
          </Alert.Content>
        </Alert.Overlay>
      </Alert.Portal>
    </Alert.Root>
  );
}
