export type { Token } from "./api";
export { CoseatProvider, type CoseatProps, type Theme } from "./coseat";
export type { Locale } from "./i18n";
export type { PaymentConfirmation } from "./payments/confirmation";
export { elementsConfirmation } from "./payments/elements";
export { SeatDialog, Seats, type SeatDialogProps } from "./seats/SeatDialog";
