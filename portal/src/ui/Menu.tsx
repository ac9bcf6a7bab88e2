import * as Dropdown from "@radix-ui/react-dropdown-menu";
import type { ReactNode } from "react";
import { useCoseat } from "../coseat";

interface Entry {
  label: string;
  onSelect: () => void;
  isDangerous?: boolean;
  isCurrent?: boolean;
}

export function Menu({ trigger, entries }: { trigger: ReactNode; entries: Entry[] }) {
  const { container } = useCoseat();
  return (
    <Dropdown.Root>
      <Dropdown.Trigger asChild>{trigger}</Dropdown.Trigger>
      <Dropdown.Portal container={container}>
        <Dropdown.Content className="cs-menu" align="end" sideOffset={4} collisionPadding={8}>
          {entries.map((entry) => (
            <Dropdown.Item
              key={entry.label}
              className="cs-menu-item"
              data-danger={entry.isDangerous || undefined}
              aria-current={entry.isCurrent ? "page" : undefined}
              onSelect={entry.onSelect}
            >
              {entry.label}
            </Dropdown.Item>
          ))}
        </Dropdown.Content>
      </Dropdown.Portal>
    </Dropdown.Root>
  );
}
