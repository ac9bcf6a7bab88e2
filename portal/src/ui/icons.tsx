import type { ReactNode } from "react";

function icon(paths: ReactNode) {
  return function Icon() {
    return (
      <svg className="cs-icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false">
        {paths}
      </svg>
    );
  };
}

export const CloseIcon = icon(<path d="M4 4l8 8M12 4l-8 8" />);
export const MoreIcon = icon(<path d="M3.5 8h.01M8 8h.01M12.5 8h.01" strokeWidth="2.2" />);
export const SearchIcon = icon(<path d="M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10zM10.7 10.7L14 14" />);
export const MinusIcon = icon(<path d="M3.5 8h9" />);
export const PlusIcon = icon(<path d="M3.5 8h9M8 3.5v9" />);
export const ChevronIcon = icon(<path d="M4 6l4 4 4-4" />);
export const MenuIcon = icon(<path d="M2.5 4.5h11M2.5 8h11M2.5 11.5h11" />);
export const DownloadIcon = icon(<path d="M8 2.5v7.5M5 7l3 3 3-3M3 13.5h10" />);
